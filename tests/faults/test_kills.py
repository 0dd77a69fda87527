"""kill -9 at random moments: the last commit is there, whole, and nothing else."""

from __future__ import annotations

import pytest

from .kills import Campaign

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.mark.parametrize(
    ("durability", "layout"),
    [
        ("power", "columns"),
        ("process", "columns"),
        ("power", "records"),
        ("power", "lazy"),
        ("process", "checked"),
    ],
)
def test_kills_at_random_moments_leave_the_last_commit(quick_path, durability, layout):
    campaign = Campaign(quick_path, durability, seed=1, layout=layout)
    campaign.run(100)

    assert campaign.model.step > 20  # on a busy machine trainers get little done
    assert campaign.rolled_back > 5


@pytest.mark.long
@pytest.mark.parametrize("layout", ["columns", "records", "lazy", "checked"])
@pytest.mark.parametrize("durability", ["power", "process"])
def test_ten_thousand_kills_leave_the_last_commit(quick_path, durability, layout):
    campaign = Campaign(quick_path, durability, seed=2, layout=layout)
    campaign.run(5_000)

    assert campaign.rolled_back > 1_000
