"""`mmembed snapshot`, `delta` and `diff`: what they make and say."""

from __future__ import annotations

import json

import numpy as np
import pytest

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


def change(table, rows):
    with Table.open(table, "r+") as opened:
        opened.write(rows, 4)


@pytest.mark.parametrize("how", ["--base", "--since"])
def test_a_delta_brings_a_snapshot_up_to_date(table, out, capsys, how):
    delta = out.with_name("delta")
    assert main(["delta", "track", str(table)]) == 0
    assert main(["snapshot", str(table), str(out)]) == 0
    with Table.open(table) as opened:
        since = str(out) if how == "--base" else str(opened.commits)
    change(table, [3, 5])
    capsys.readouterr()

    assert main(["diff", str(table), str(out)]) == 1
    assert "weight: 2 of 21 rows differ, by " in capsys.readouterr().out
    assert main(["delta", "export", str(table), str(delta), how, since]) == 0
    assert main(["delta", "info", str(delta)]) == 0
    assert "of 21 rows" in capsys.readouterr().out
    assert main(["delta", "apply", str(out), str(delta)]) == 0
    assert main(["delta", "apply", str(out), str(delta)]) == 0
    assert "was already at" in capsys.readouterr().out
    assert main(["diff", str(table), str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["same"]
    assert {column["kind"] for column in said["columns"]} == {"same"}


def test_a_delta_of_a_table_that_is_not_tracked_is_refused(table, out, capsys):
    status = main(["delta", "export", str(table), str(out), "--since", "1"])

    assert "does not track its changes" in refusal(capsys, status)
    assert not out.exists()


def test_a_damaged_delta_is_refused(table, out, capsys):
    out.write_bytes(b"MMEMDLTA" + bytes(20_000))

    assert "version 0" in refusal(capsys, main(["delta", "info", str(out)]))
    assert "version 0" in refusal(capsys, main(["delta", "apply", str(table), str(out)]))
