"""`mmembed train --resume`: after kill -9 it goes on from the last commit, to the same bits."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time

import numpy as np
import pytest

from mmembed.cli import main
from mmembed.storage import Table

from .commands import COMMAND, refusal

EPOCHS = 400  # long enough that a kill after the first commits comes before the end
LONG = ["--dim", "8", "--epochs", str(EPOCHS), "--min-count", "1", "--sample", "0"]
LONG += ["--commit-every", "0"]


def columns(path):
    with Table.open(path) as table:
        return {name: table.column(name).copy() for name in table.columns}, table.step


def committed(path):
    """Return the step of the last commit; 0 of a table that does not exist yet."""
    try:
        with Table.open(path) as table:
            return table.step
    except FileNotFoundError:
        return 0


def test_a_killed_training_is_resumed_to_the_same_bits(text, tmp_path, capsys):
    whole, killed = tmp_path / "whole.mmembed", tmp_path / "killed.mmembed"
    assert main(["train", str(text), "--out", str(whole), *LONG]) == 0
    command = [*COMMAND, "train", str(text), "--out", str(killed), *LONG]
    for resume in ([], ["--resume"]):
        before = committed(killed)
        with subprocess.Popen([*command, *resume], stdout=subprocess.DEVNULL) as process:
            while committed(killed) == before:
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
    with Table.open(killed) as table:
        assert not table.clean
        assert 0 < table.step < EPOCHS

    assert main(["train", str(text), "--out", str(killed), "--resume"]) == 0

    found, step = columns(killed)
    expected, steps = columns(whole)
    assert step == steps == EPOCHS
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], rows) for name, rows in expected.items())
    lines = (killed / "training.jsonl").read_text().splitlines()
    words = [json.loads(line)["words"] for line in lines]
    assert words == sorted(words)
    assert words[-1] == EPOCHS * 3120


def test_resuming_what_is_finished_changes_nothing(text, table, capsys):
    before = columns(table)

    assert main(["train", str(text), "--out", str(table), "--resume"]) == 0

    found, step = columns(table)
    assert step == before[1]
    assert all(np.array_equal(found[name], rows) for name, rows in before[0].items())


def test_a_line_of_the_log_that_was_cut_short_is_dropped(text, table):
    with open(table / "training.jsonl", "a") as log:
        log.write('{"words": 12')

    assert main(["train", str(text), "--out", str(table), "--resume"]) == 0

    assert all(json.loads(line) for line in (table / "training.jsonl").read_text().splitlines())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dim", "7"], "was begun with --dim 16, not 7"),
        (["--seed", "9"], "was begun with --seed 0, not 9"),
        (["--force"], "--resume goes on with the table that --force would replace"),
    ],
)
def test_other_settings_or_texts_are_refused(text, table, capsys, options, message):
    status = main(["train", str(text), "--out", str(table), "--resume", *options])

    assert re.search(message, refusal(capsys, status))


def test_another_text_is_refused(text, table, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text(text.read_text().replace("redb", "redc", 1))

    status = main(["train", str(other), "--out", str(table), "--resume"])

    assert "is not the one that" in refusal(capsys, status)


def test_what_is_no_training_is_refused(text, out, capsys):
    status = main(["train", str(text), "--out", str(out), "--resume"])
    assert "no table at" in refusal(capsys, status)
    Table.create(out, 3, 3).close()
    status = main(["train", str(text), "--out", str(out), "--resume"])
    assert "has no training to go on with" in refusal(capsys, status)
