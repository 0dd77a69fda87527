"""Settings: every one out of range is refused, and named."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from mmembed.training import Settings

LEAST = {
    "dim": 1, "window": 1, "negatives": 0, "epochs": 0, "sample": 0, "min_count": 1,
    "seed": 0, "block": 1, "blocks": 1, "noise": 1,
}  # fmt: skip
REALS = ("negatives", "lr", "sample")
BELOW = [(name, least - 1, f"{name} must be at least {least}") for name, least in LEAST.items()]
NAN = [(name, math.nan, f"{name} must be") for name in REALS]
INFINITE = [(name, math.inf, f"{name} must be finite, got inf") for name in REALS]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *BELOW,
        *NAN,
        *INFINITE,
        ("lr", 0, "lr must be above 0, got 0"),
        ("lr", -0.1, "lr must be above 0, got -0.1"),
        ("negatives", -1e-9, "negatives must be at least 0, got -1e-09"),
        ("sample", -1e-9, "sample must be at least 0, got -1e-09"),
        ("window", 61, "window and block must be at most 60, got 61 and 16"),
        ("block", 61, "window and block must be at most 60, got 5 and 61"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings(**{name: value})


@pytest.mark.parametrize(("name", "value"), [*LEAST.items(), ("window", 60), ("block", 60)])
def test_a_setting_at_the_edge_of_its_range_is_taken(name, value):
    assert getattr(Settings(**{name: value}), name) == value


def test_every_setting_is_checked_here():
    assert {field.name for field in dataclasses.fields(Settings)} == {*LEAST, "lr"}


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().dim = 3
