"""`verify`: what it says of sound tables, and that it finds what is wrong, all of it at once."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from mmembed.errors import CorruptTableError, TableNotFoundError
from mmembed.storage import Table, verify, writer_of
from mmembed.storage.format import COPY_BYTES, SLOT_BYTES

from .examples import contents, small_table
from .mutation import put_in


def bad(path, **options):
    """The parts that are bad."""
    return [finding.part for finding in verify(path, **options) if finding.state == "bad"]


def text(path, part, **options):
    """What is said of one part."""
    return "; ".join(f.text for f in verify(path, **options) if f.part == part)


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_table_is_sound_and_stays_as_it_was(small, deep):
    before = contents(small)

    assert {finding.state for finding in verify(small, deep=deep)} == {"ok"}

    assert contents(small) == before


def test_what_would_be_put_back_is_said(small):
    hot = (
        "import os, signal, sys; from mmembed import Table\n"
        "table = Table.open(sys.argv[1], 'r+'); table.write([1, 2], 9)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", hot, str(small)], check=False)

    assert bad(small) == []
    assert "2 rows to put back" in text(small, "undo")
    assert "not closed" in text(small, "super")
    assert text(small, "LOCK").endswith("ended without closing the table")


def test_every_damaged_part_is_found_in_one_go(small):
    flip(small / "weight.npy", 20)
    os.truncate(small / "count.npy", 4100)
    flip(small / "undo", 20)
    flip(small / "undo", 532)
    (small / "LOCK").unlink()

    assert bad(small) == ["weight.npy", "count.npy", "undo", "LOCK"]


def test_a_table_without_a_valid_super_is_damaged(small):
    for at in range(0, 2 * SLOT_BYTES, COPY_BYTES):
        flip(small / "super", at + 100)

    assert bad(small) == ["super"]


def test_a_damaged_copy_that_does_not_count_is_a_note(small):
    flip(small / "super", 5)

    assert bad(small) == []
    assert "at byte 0 does not count" in text(small, "super")


def test_what_is_no_part_of_the_table_is_a_note(small):
    np.save(small / "old.npy", np.zeros(3))
    draft = small.with_name(f"{small.name}.tmp-{'0' * 16}")
    draft.mkdir()

    notes = {finding.part for finding in verify(small) if finding.state == "note"}

    assert notes == {"old.npy", draft.name}


def test_numbers_that_are_not_finite_are_counted_if_asked(small):
    with Table.open(small, "r+") as table:
        table.write([0], [np.nan, np.inf, 0])

    assert text(small, "weight.npy", deep=True).endswith("all rows read: 1 NaN, 1 infinite")
    assert bad(small, deep=True) == []
    assert "NaN" not in text(small, "weight.npy")


def test_tables_of_other_numbers_are_read_too(path, tmp_path):
    pytest.importorskip("ml_dtypes")
    with Table.create(path, 6, 3, dtype="bfloat16") as table:
        table.write([2], np.inf)
    with Table.create(tmp_path / "plain", 6, 3) as table:
        table.quantize(tmp_path / "small").close()
    Table.create(tmp_path / "empty", 0, 0).close()

    assert text(path, "weight.npy", deep=True).endswith("0 NaN, 3 infinite")
    assert bad(tmp_path / "small", deep=True) == []
    assert bad(tmp_path / "empty", deep=True) == []


def test_a_table_that_is_refused_as_a_whole_is_bad(path):
    with Table.create(path, 4, 2, durability="process") as table:
        table.commit()
        data = (path / "super").read_bytes()
    (path / "super").write_bytes(data)  # as it was when a writer had it open
    code = (
        "import sys, uuid; from mmembed.storage import opened, verify\n"
        "opened.boot_id = uuid.uuid4\n"
        "print([f.part for f in verify(sys.argv[1]) if f.state == 'bad'])"
    )

    said = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )

    assert said.stdout.strip() == "['table']"


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(CorruptTableError, match="is not a table"):
        verify(tmp_path)
    with pytest.raises(TableNotFoundError):
        verify(tmp_path / "nothing")


def test_the_writer_is_named_while_it_lives(path):
    small_table(path)
    with Table.open(path, "r+"):
        assert writer_of(path) == (
            True, f"open for writing by process {os.getpid()} on {os.uname().nodename}",
        )  # fmt: skip
        assert bad(path) == []
    assert writer_of(path) == (False, "free")


def test_a_verify_that_stops_early_is_noticed(small, monkeypatch):
    from mmembed.storage import verification

    flip(small / "weight.npy", 20)
    os.truncate(small / "count.npy", 4100)
    put_in(monkeypatch, verification._Search, "look", "return None", "raise")

    with pytest.raises(CorruptTableError):
        bad(small)


def test_the_number_in_a_damaged_header_is_told(small):
    data = bytearray((small / "undo").read_bytes())
    data[:] = bytes(len(data))
    (small / "undo").write_bytes(data)

    assert "has no valid header" in text(small, "undo")
