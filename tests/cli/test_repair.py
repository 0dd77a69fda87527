"""`mmembed verify`, `recover`, `unlock`, `seal`, `unseal`: what they say, and their exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from mmembed.cli import main
from mmembed.storage import Table

from .commands import refusal

KILLED = (
    "import os, signal, sys; from mmembed import Table\n"
    "table = Table.open(sys.argv[1], 'r+'); table.write([1, 2], 9)\n"
    "os.kill(os.getpid(), signal.SIGKILL)"
)


def kill_a_writer(path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_verify_says_what_it_found(table, capsys):
    assert main(["verify", str(table), "--deep"]) == 0

    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "sound"
    for part in ("super", "undo", "LOCK", "weight.npy", "context.npy"):
        assert f"ok    {part}" in said


def test_verify_of_a_damaged_table_has_status_1(table, capsys):
    os.truncate(table / "weight.npy", 5000)

    assert main(["verify", str(table), "--json"]) == 1

    said = json.loads(capsys.readouterr().out)
    assert said["sound"] is False
    assert [f["part"] for f in said["findings"] if f["state"] == "bad"] == ["weight.npy"]


def test_verify_of_nothing_has_status_2(tmp_path, capsys):
    assert "no table" in refusal(capsys, main(["verify", str(tmp_path / "nothing")]))


def test_recover_says_what_it_put_back(table, capsys):
    kill_a_writer(table)

    assert main(["recover", str(table)]) == 0
    assert "2 rows were put back" in capsys.readouterr().out
    assert main(["recover", str(table)]) == 0
    assert "nothing to put back" in capsys.readouterr().out


def test_unlock_names_the_holder_and_does_not_break_its_lock(table, capsys):
    with Table.open(table, "r+"):
        assert main(["unlock", str(table)]) == 1
        assert f"process {os.getpid()}" in capsys.readouterr().out
        assert "is open for writing by" in refusal(capsys, main(["recover", str(table)]))
    assert main(["unlock", str(table)]) == 0
    assert capsys.readouterr().out.startswith("free\n")


def test_unlock_after_a_kill_says_that_nothing_is_locked(table, capsys):
    kill_a_writer(table)

    assert main(["unlock", str(table)]) == 0

    assert "ended without closing the table" in capsys.readouterr().out


@pytest.mark.parametrize("killed", [False, True])
def test_a_sealed_table_shows_a_flipped_bit(table, capsys, killed):
    if killed:
        kill_a_writer(table)
    assert main(["seal", str(table)]) == 0
    assert main(["verify", str(table), "--deep"]) == 0
    assert "every byte of every row" in capsys.readouterr().out
    assert "is sealed" in refusal(capsys, main(["recover", str(table)]))
    with open(table / "weight.npy", "r+b") as file:
        file.seek(4500)
        file.write(b"!")

    assert main(["verify", str(table)]) == 0
    assert main(["verify", str(table), "--deep"]) == 1
    assert "not what was sealed" in capsys.readouterr().out
    assert main(["unseal", str(table)]) == 0
    assert main(["recover", str(table)]) == 0
