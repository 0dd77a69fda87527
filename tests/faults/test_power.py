"""Losses of power at any moment of a run, over a model of the disk."""

from __future__ import annotations

import random

import pytest

from .power import History

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def check_losses(path, durability, attempt, draws, chosen, layout="columns"):
    history = History(path, durability, attempt, random.Random(attempt), layout)
    history.run(draws)
    return history.check(chosen)


@pytest.mark.parametrize("layout", ["columns", "records", "lazy"])
def test_a_loss_of_power_at_any_call_leaves_the_last_commit(quick_path, layout):
    found = check_losses(quick_path, "power", 2, draws=8, chosen=1000, layout=layout)

    assert found["refused"] == 0
    assert found["moved on"] > 5
    assert found["stayed"] > 500


def test_at_level_process_a_loss_of_power_is_noticed(quick_path):
    found = check_losses(quick_path, "process", 2, draws=8, chosen=300)

    assert found["refused"] > 200
    assert found["stayed"] > 0  # closed, and marked clean


@pytest.mark.long
@pytest.mark.parametrize("layout", ["columns", "records", "lazy"])
@pytest.mark.parametrize("durability", ["power", "process"])
@pytest.mark.parametrize("attempt", range(100, 200))
def test_many_losses_of_power_leave_the_last_commit(quick_path, durability, attempt, layout):
    check_losses(quick_path, durability, attempt, draws=30, chosen=10_000, layout=layout)
