"""The set of rows that were saved: what is put in comes out, in order."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.storage.seen import SeenRows


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 63, 64, 65, 1000, 4097])
@pytest.mark.parametrize("block", [1, 8, 64, 1 << 20])
def test_all_that_was_seen_comes_back_in_order(rows, block):
    ids = np.flatnonzero(np.random.default_rng(rows).random(rows) < 0.3)
    seen = SeenRows(rows)
    seen.add(ids)

    found = [*seen.all_seen(block), np.empty(0, np.int64)]

    assert np.array_equal(np.concatenate(found), ids)
    assert sum(some.size for some in seen.all_unseen(8)) == rows - ids.size
