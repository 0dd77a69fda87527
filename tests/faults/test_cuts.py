"""The power of a real file system is cut, again and again: ext4 and XFS in a file."""

from __future__ import annotations

import pytest

from . import places
from .cuts import Cuts

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.mark.parametrize(("kind", "cuts"), [("ext4", 100), ("xfs", 30)])
def test_a_file_system_that_loses_power_leaves_the_last_commit(kind, cuts):
    places.need(kind)
    campaign = Cuts(kind, seed=1)
    campaign.run(cuts)

    assert campaign.rolled_back > cuts // 10


@pytest.mark.long
@pytest.mark.parametrize(("kind", "cuts"), [("ext4", 1500), ("xfs", 500)])
def test_a_file_system_that_loses_power_two_thousand_times_leaves_the_last_commit(kind, cuts):
    places.need(kind)
    Cuts(kind, seed=2).run(cuts)
