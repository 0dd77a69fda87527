"""`mmembed snapshot`: what it makes and says."""

from __future__ import annotations

import numpy as np

from mmembed.cli import main
from mmembed.storage import Table
from mmembed.vocab import Vocabulary

from .commands import refusal


def test_snapshot_copies_rows_and_words(trained, out, capsys):
    assert main(["snapshot", str(trained), str(out)]) == 0

    assert "21 rows" in capsys.readouterr().out
    with Table.open(out) as copy, Table.open(trained) as table:
        assert np.array_equal(copy[:], table[:])
    assert list(Vocabulary.open(out / "vocab")) == list(Vocabulary.open(trained / "vocab"))


def test_snapshot_does_not_overwrite(trained, out, capsys):
    out.mkdir()

    assert "exists" in refusal(capsys, main(["snapshot", str(trained), str(out)]))
