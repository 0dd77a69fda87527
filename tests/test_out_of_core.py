"""The benchmark of tables larger than memory runs, at a small size, so that it does not rot."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import bounded
import cold_tables
import lazy_rows
import out_of_core


@pytest.fixture
def bound():
    if reason := bounded.unavailable():
        pytest.skip(reason)


@pytest.mark.parametrize("skew", ["uniform", "contiguous", "hashed"])
def test_batches_are_ids_of_the_table_and_scattering_keeps_their_counts(skew):
    ids = cold_tables.batches(5000, skew, 4, size=1000)

    assert ids.shape == (4, 1000)
    assert 0 <= ids.min() <= ids.max() < 5000
    if skew == "hashed":
        ranks = cold_tables.batches(5000, "contiguous", 4, size=1000)
        counts = [np.sort(np.unique(some, return_counts=True)[1]) for some in (ids, ranks)]
        np.testing.assert_array_equal(*counts)


def test_contestants_run_under_a_bound_and_give_the_rows(bound, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(out_of_core, "mixed_limit", lambda *_: 1.0)
    arguments = argparse.Namespace(
        questions=["lookup", "ahead", "identical", "Adagrad"],
        readers=["mmembed", "faults"],
        skews=["hashed"],
        parts=[1],
        megabytes=16,
        seconds=0.2,
        batches=20,
        minutes=5.0,
        trainers=["mmembed", "mmembed, records"],
    )

    results = out_of_core.measure(arguments, tmp_path)

    assert [one.get("failed") for one in results["runs"]] == [None] * 9
    digests = [one["digests"] for one in results["runs"] if one["question"] == "identical"]
    assert digests[0] == digests[1]
    out_of_core.draw(results, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").exists()


def test_what_the_time_does_not_suffice_for_is_named(tmp_path, capsys):
    arguments = argparse.Namespace(
        questions=["SGD"],
        trainers=["torch"],
        skews=["uniform"],
        parts=[1],
        megabytes=1,
        minutes=-1.0,
        seconds=0.1,
    )

    assert out_of_core.measure(arguments, tmp_path)["runs"] == []
    assert capsys.readouterr().out == "skipped, the time is up: SGD, uniform, 1, torch\n"


def test_a_result_that_failed_is_told_as_such():
    one = {"question": "lookup", "skew": "hashed", "part": 4, "name": "mmembed", "failed": "x"}

    assert "x failed" in out_of_core.line(one)


def test_the_benchmark_of_lazy_rows_measures_what_it_says(tmp_path):
    made = lazy_rows.create(tmp_path, 10**6)
    found = lazy_rows.measure(tmp_path, 20_000, 3, 9)

    assert made["bytes on disk"] < 1 << 20
    assert all(found[kind]["lazy / eager"] > 0 for kind in found if kind != "rows")
