"""The benchmarks run, at a small size, so that they do not rot."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import backups
import batches
import contest
import dictionaries
import machine
import run
import targets
import word_vectors

from mmembed import kernels


@pytest.fixture
def texts():
    """Two topics that share no word."""
    rng = np.random.default_rng(0)
    topics = [[f"{topic}{i}" for i in range(30)] for topic in ("a", "b")]
    return [list(rng.choice(topics[i % 2], 20)) for i in range(2_000)]


def test_contestants_are_timed_in_turn_and_compared_round_by_round():
    order = []

    done = contest.run(
        "a question", {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, "a", 0.0, 3
    )

    assert order == ["a", "a", "b", "b", *"ababab"]
    timed = contest.Contest("a question", {"a": [0.004, 0.002], "b": [0.001, 0.001]}, "a")
    assert timed.speeds() == {"a": 1.0, "b": 3.0}
    assert timed.medians() == {"a": 0.003, "b": 0.001}
    assert timed.as_dict()["speed against"] == {
        "a": {"a": 1.0, "b": 3.0},
        "b": {"a": 0.375, "b": 1.0},
    }
    assert contest.table([done, timed]).splitlines()[-1] == (
        "| a question | 3 ms (1.00x) | 1 ms (3.00x) |"
    )


@functools.cache
def tiny(name):
    """All contests of a script, at a five-hundredth of their size and hardly repeated."""
    return list(importlib.import_module(name).contests(0.002, 0.0))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:fbgemm_gpu")
@pytest.mark.parametrize(
    "name", ["limits", "lookups", "steps", "fused", "narrow", "bodies", "sizes"]
)
def test_contests_run_and_check_their_answers(name):
    pytest.importorskip("torch")

    done = tiny(name)

    assert len(done) >= 6
    assert all(one.peer in one.times and one.about["question"] for one in done)
    ours = "numba" if name == "bodies" else "mmembed"
    assert name == "limits" or all(ours in one.times for one in done)
    assert name == "sizes" or len({one.title for one in done}) == len(done)


def test_durability_is_priced_beside_its_targets_and_the_disk(tmp_path, monkeypatch):
    durability = importlib.import_module("durability")
    monkeypatch.setattr(durability, "COMMIT_EVERY", 3)

    done = list(durability.contests(tmp_path, 0.002, 0.0))

    said = durability.report(done)
    assert all(set(one.times) == set(durability.LEVELS) for one in done)
    assert "| step alone | power, ahead | " in said
    assert said.count("if only the disk were waited for") == 2
    durability.draw(done, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:fbgemm_gpu")
def test_a_quick_look_asks_fewer_questions():
    pytest.importorskip("torch")
    fused = importlib.import_module("fused")

    assert len(list(fused.contests(0.002, 0.0, True))) < len(tiny("fused"))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_pictures_are_drawn_of_what_was_measured(tmp_path):
    pytest.importorskip("torch")
    plots = importlib.import_module("plots")
    measured = [one.as_dict() for name in ("limits", "sizes", "fused") for one in tiny(name)]

    drawn = plots.draw(measured, tmp_path)

    names = ["ratios.png", "table_size.png", "batch_size.png", "limits.png"]
    assert [path.name for path in drawn] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    assert plots.draw([], tmp_path) == []


def test_the_kernels_benchmark_covers_every_kernel():
    pytest.importorskip("torch")
    bodies = importlib.import_module("bodies")

    compared = set(bodies.Arrays(100, 10).calls())

    assert compared == set(inspect_kernels()) - {"first_bad_id"}


def inspect_kernels():
    settings = {"load", "backend", "accepts"}
    named = {name for name in kernels.__all__ if name.islower() and "threads" not in name}
    return named - settings - {"set_backend"}


def test_batches_are_handed_out_round_and_round_to_all_contestants():
    turns = contest.Turns("abc")

    assert [turns() for _ in range(5)] == ["a", "b", "c", "a", "b"]


@pytest.mark.parametrize("skew", batches.SKEWS)
def test_batches_are_drawn_from_one_distribution_within_the_table(skew):
    draw = batches.draw(1000, skew)

    first, second = draw((200, 50)), draw((10_000,))

    assert first.shape == (200, 50)
    assert first.dtype == np.int64
    assert first.min() >= 0
    assert second.max() < 1000
    hottest = [np.bincount(ids.reshape(-1)).argmax() for ids in (first, second)]
    assert (hottest[0] == hottest[1]) == (skew == "zipf")


def a_result(dim, ours, **peers):
    return contest.Contest(
        f"gather {dim}",
        {"mmembed out=": [ours, ours], **{name: [time, time] for name, time in peers.items()}},
        "take out=",
        {"question": "gather", "dim": dim},
    ).as_dict()


def test_a_target_is_judged_by_the_best_peer_and_the_worst_contest():
    results = [
        a_result(64, 1.0, **{"torch out=": 2.0, "take out=": 1.2}),
        a_result(128, 1.0, **{"torch out=": 1.6, "take out=": 3.0}),
    ]

    by_work = {one.target.work: one for one in targets.judge(results)}

    one = by_work["gather into out=, table of 1 GiB, every dim"]
    assert one.ratios == {"gather 64": 1.2, "gather 128": 1.6}
    assert one.verdict == "met"
    assert one._replace(ratios={"a": 1.5, "b": 1.6}).verdict == "stretch"
    assert one._replace(ratios={"a": 1.14, "b": 1.6}).verdict == "MISSED"
    assert by_work["renorm of 100k distinct rows"].verdict == "not measured"
    assert "| 1.15 | 1.5 | 1.20–1.60 | met |" in targets.table([one])


def test_the_targets_are_told_from_the_results_that_are_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py", "--no-run"])
    kept = {"contests": [a_result(64, 1.0, **{"torch out=": 2.0, "take out=": 1.0})]}
    machine.save("lookups", kept)

    run.main()

    assert "| 1.15 | 1.5 | 1.00 | MISSED |" in capsys.readouterr().out
    said = json.loads((tmp_path / "targets.json").read_text())["targets"]
    assert [one["verdict"] for one in said].count("MISSED") == 1


def test_rules_of_ones_own_are_timed_beside_the_rule_they_repeat():
    pytest.importorskip("torch")

    (uniform, _) = importlib.import_module("own_rules").contests(0.002, 0.0)

    assert list(uniform.times) == ["Adagrad", "Adagrad by RowOptimizer", "FTRL by RowOptimizer"]


GOLD = {"toy": [("a1", "a2", 9.0), ("a3", "b4", 1.0), ("b5", "b6", 8.0), ("b7", "a8", 2.0)]}


def test_word_vectors_trains_on_disk_and_finds_the_topics(texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    run = word_vectors.run_mmembed(texts, GOLD, seed=1, threads=2, epochs=40)

    assert set(run) == {"vocabulary", "training", "toy"}
    assert run["toy"] > 0.7
    assert list(tmp_path.iterdir()) == []


def test_word_vectors_runs_contestants_in_turn_and_tabulates_ratios(capsys):
    order = []

    def contestant(name, seconds):
        def run(seed):
            order.append((name, seed))
            return {"vocabulary": 1.0, "training": seconds, "toy": 0.5}

        return run

    results = word_vectors.compare({"x": contestant("x", 8.0), "y": contestant("y", 2.0)}, [1, 2])

    assert order == [("x", 1), ("y", 1), ("x", 2), ("y", 2)]
    lines = word_vectors.table(results, "x").splitlines()
    assert "| x | 8.0 | 1.00x |" in lines[2]
    assert "| y | 2.0 | 4.00x |" in lines[3]


def test_word_vectors_reads_gold_sets_as_gensim_ships_them(tmp_path):
    (tmp_path / "wordsim353.tsv").write_text("# Word 1\tWord 2\tHuman\nLove\tsex\t6.77\n")
    (tmp_path / "simlex999.txt").write_text("old\tnew\t1.58\n")

    gold = word_vectors.load_gold(tmp_path)

    assert gold["WordSim-353"] == [("love", "sex", 6.77)]
    assert gold["SimLex-999"] == [("old", "new", 1.58)]


def test_the_dictionaries_are_refused_if_a_package_is_not_the_known_one(tmp_path):
    for package in dictionaries.SHA256:
        (tmp_path / f"{package}_1_all.deb").write_bytes(b"something else")

    with pytest.raises(dictionaries.UnavailableError, match="has the SHA-256"):
        dictionaries.load(tmp_path)


def test_a_result_names_machine_and_versions():
    said = machine.describe("pytest")

    assert said["cores"] >= 1
    assert {"processor", "python", "numpy", "mmembed", "pytest"} <= set(said)


def test_backups_are_measured(tmp_path):
    lines = [*backups.deltas(tmp_path, 2_000), *backups.commits(tmp_path, 2_000)]

    assert len(lines) == 6
    assert lines[1].startswith("0.1% changed: delta 0.0 MB (")
