"""All that file systems write to a disk is recorded, and most of it lost, reordered and torn."""

from __future__ import annotations

import pytest

from . import places
from .blocks import Campaign

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def found_in(kind, seed, states):
    places.need(kind)
    places.need("fuse")
    campaign = Campaign(kind, seed)
    campaign.run(states)
    assert campaign.found["again"] < 3
    return campaign.found


@pytest.mark.parametrize(("kind", "states"), [("ext4", 400), ("xfs", 100)])
def test_whatever_a_disk_kept_of_what_was_not_flushed_the_last_commit_is_there(kind, states):
    found = found_in(kind, 1, states)

    assert found["nothing"] + found["stayed"] + found["moved on"] == states
    assert found["rolled back"] > states // 10
    assert found["moved on"] > 0


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 110))
@pytest.mark.parametrize(("kind", "states"), [("ext4", 1500), ("xfs", 500)])
def test_of_many_states_of_the_disk_each_has_the_last_commit(kind, states, seed):
    found_in(kind, seed, states)
