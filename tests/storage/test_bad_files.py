"""Truncated, swapped, foreign and forged tables: one clear line, nothing written, nothing lost."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import struct
import sys

import numpy as np
import pytest

from mmembed.errors import (
    CorruptTableError,
    TableNotFoundError,
    UntrustedTableError,
)
from mmembed.storage import Table
from mmembed.storage import files as files_module
from mmembed.storage.format import COPY_BYTES, SLOT_BYTES

from .examples import change_copies, change_json, contents, resealed_header


def refuse(path, message, error=CorruptTableError):
    """Neither mode opens the table, both say why in one line, and no byte changes."""
    before = contents(path) if path.is_dir() else None
    for mode in ("r", "r+"):
        with pytest.raises(error, match=message) as caught:
            Table.open(path, mode)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    assert before == (contents(path) if path.is_dir() else None)


def truncate(name, size):
    def damage(path):
        os.truncate(path / name, size)

    return damage


def extend(name, count):
    def damage(path):
        with open(path / name, "ab") as file:
            file.write(bytes(count))

    return damage


def overwrite(name, at, data):
    def damage(path):
        with open(path / name, "r+b") as file:
            file.seek(at)
            file.write(data)

    return damage


def replace_by(name, make):
    def damage(path):
        (path / name).unlink()
        make(path / name)

    return damage


def symlink_to_a_copy(file):
    target = file.parent.parent / "elsewhere"
    shutil.copy(file.parent / "weight.npy" if not file.exists() else file, target)
    file.symlink_to(target)


def bind_socket(file):
    here = os.open(file.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(f"/proc/self/fd/{here}/{file.name}")  # paths of sockets are short
    os.close(here)


def swap(first, second):
    def damage(path):
        os.rename(path / first, path / "third")
        os.rename(path / second, path / first)
        os.rename(path / "third", path / second)

    return damage


def hard_link(name):
    def damage(path):
        os.link(path / name, path.parent / "second name")

    return damage


def from_another_table(name):
    def damage(path):
        with Table.create(path.parent / "other", 5, 3) as other:
            other.add_column("count", scalar=True)
        shutil.copy(path.parent / "other" / name, path / name)

    return damage


def from_another_shape(path):
    with Table.create(path.parent / "other", 3, 5):
        pass
    shutil.copy(path.parent / "other" / "weight.npy", path / "weight.npy")


def plain_npy(path):
    np.save(path / "weight.npy", np.zeros((5, 3), np.float32))


def pickled_npy(path):
    np.save(path / "weight.npy", np.array([{"a": "b" * 5000}]), allow_pickle=True)


DAMAGES = {
    "super missing": (lambda path: (path / "super").unlink(), "super is missing: not a table"),
    "super empty": (truncate("super", 0), "super has 0 bytes, must have 32768"),
    "super truncated": (truncate("super", 16384), "super has 16384 bytes, must have 32768"),
    "super extended": (extend("super", 1), "super has 32769 bytes, must have 32768"),
    "super zeroed": (overwrite("super", 0, bytes(32768)), "super: no valid copy; all bytes are"),
    "super random": (overwrite("super", 0, b"junk" * 8192), "super: no valid copy.*begins with"),
    "super of another table": (from_another_table("super"), "is of another table: its uuid is"),
    "column missing": (lambda path: (path / "count.npy").unlink(), "count.npy is missing"),
    "column empty": (truncate("weight.npy", 0), "weight.npy is truncated: it has 0 bytes"),
    "column without rows": (truncate("weight.npy", 4096), "truncated: it has 4096 bytes"),
    "column short by a byte": (truncate("weight.npy", 4155), "truncated: it has 4155 bytes"),
    "column without its header": (truncate("weight.npy", 4095), "truncated: it has 4095"),
    "column long by a byte": (extend("weight.npy", 1), "weight.npy is too long: it has 4157"),
    "column long by a row": (extend("weight.npy", 12), "5 rows of 12 bytes after a header of 4096"),
    "columns swapped": (swap("weight.npy", "count.npy"), "holds another column: its role is count"),
    "column of another table": (from_another_table("count.npy"), "count.npy is of another table"),
    "column of another shape": (from_another_shape, "weight.npy is of another table"),
    "column an ordinary npy": (plain_npy, "weight.npy is truncated|begins with"),
    "column an npy with pickles": (pickled_npy, "weight.npy begins with"),
    "header flipped": (overwrite("weight.npy", 3000, b"!"), "damaged header: byte 3000"),
    "header checksum": (overwrite("weight.npy", 4095, b" "), "damaged header: byte 4095"),
    "column a symlink": (replace_by("count.npy", symlink_to_a_copy), "not a regular file"),
    "column a dangling link": (
        replace_by("count.npy", lambda file: file.symlink_to("nowhere")),
        "count.npy is not a regular file",
    ),
    "super a symlink": (replace_by("super", symlink_to_a_copy), "super is not a regular file"),
    "column a FIFO": (replace_by("weight.npy", os.mkfifo), "weight.npy is not a regular file"),
    "super a FIFO": (replace_by("super", os.mkfifo), "super is not a regular file"),
    "column a directory": (replace_by("weight.npy", os.mkdir), "weight.npy is not a regular file"),
    "column a socket": (replace_by("weight.npy", bind_socket), "weight.npy is not a regular file"),
    "column a device": (
        replace_by("weight.npy", lambda file: file.symlink_to("/dev/zero")),
        "weight.npy is not a regular file",
    ),
    "column with two names": (hard_link("weight.npy"), "weight.npy has 2 hard links, must have 1"),
    "super with two names": (hard_link("super"), "super has 2 hard links, must have 1"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_table_is_refused_and_nothing_changes(small, damage, message):
    damage(small)

    refuse(small, message)


def put(offset, kind, value):
    return lambda body: body[:offset] + struct.pack(kind, value) + body[
        offset + struct.calcsize(kind) :
    ]  # fmt: skip


def put_rows(rows):
    return lambda body: put(56, "<Q", rows)(put(96, "<Q", rows)(body))


FORGERIES = {
    "magic": (put(0, "<B", 0), "begins with"),
    "version": (put(8, "<I", 2), "format version is 2, and this mmembed reads 1"),
    "features": (put(12, "<I", 2**31), "needs features 0x80000000"),
    "endian": (put(16, ">I", 0x01020304), "endian marker"),
    "json bytes": (put(20, "<I", 5), "a field is not valid"),
    "uuid": (put(24, "<Q", 0), "weight.npy is of another table: its uuid"),
    "fewer rows": (put_rows(4), r"another shape: \(5, 3\), must be \(4, 3\)"),
    "more rows": (put_rows(6), r"another shape: \(5, 3\), must be \(6, 3\)"),
    "no rows": (put_rows(0), r"another shape: \(5, 3\), must be \(0, 3\)"),
    "a growth from fewer rows": (put(56, "<Q", 6), "weight.npy is truncated: it has 4156 bytes"),
    "a growth beyond any file": (put(96, "<Q", 2**63), "other_rows must be in"),
    "rows beyond any file": (put(56, "<Q", 2**63), "rows must be in"),
    # In 64-bit arithmetic this many rows of 12 bytes have exactly the size of the file.
    "rows whose bytes wrap around": (put(56, "<Q", 2**62 + 5), "do not fit a file"),
    "durability": (put(88, "<B", 9), "durability level is 9"),
    "clean": (put(89, "<B", 255), "byte 89 is 0xff"),
    "zeros": (put(90, "<B", 1), "byte 90 is 0x01"),
}


@pytest.mark.parametrize(("change", "message"), FORGERIES.values(), ids=FORGERIES)
def test_a_forged_field_of_super_is_refused_and_nothing_changes(small, change, message):
    change_copies(small, change)

    refuse(small, message)


def test_an_epoch_in_the_wrong_slot_is_refused_and_nothing_changes(small):
    data = (small / "super").read_bytes()
    (small / "super").write_bytes(data[SLOT_BYTES:] + data[:SLOT_BYTES])

    refuse(small, "stands in the slot of even epochs")


JSON_FORGERIES = {
    "dtype": (b'"name":"weight","dtype":"float32"', b'"name":"weight","dtype":"float64"', "dtype"),
    "wider": (b'"dim":3', b'"dim":4', r"another shape: \(5, 3\), must be \(5, 4\)"),
    "scalar": (b'"dim":null', b'"dim":1', r"another shape: \(5,\), must be \(5, 1\)"),
    "a column more": (
        b'{"name":"weight",',
        b'{"name":"weight","dtype":"float32","dim":3,"init":"zeros","seed":0},{"name":"sum",',
        "sum.npy is missing",
    ),
    "a path": (b'"name":"count"', b'"name":"../../x"', "cannot be a name"),
    "code": (b'"normal"', b'"__import__"', "is not understood"),
}


@pytest.mark.parametrize(("old", "new", "message"), JSON_FORGERIES.values(), ids=JSON_FORGERIES)
def test_forged_json_is_refused_and_nothing_changes(small, old, new, message):
    data = bytearray((small / "super").read_bytes())
    data[:SLOT_BYTES] = data[SLOT_BYTES:] if data[SLOT_BYTES:].find(old) < 0 else data[:SLOT_BYTES]
    data[SLOT_BYTES:] = bytes(SLOT_BYTES)  # only the slot of epoch 2, which has every column
    (small / "super").write_bytes(data)
    change_json(small, old, new)

    refuse(small, message)


HEADER_FORGERIES = {
    "uuid": (b"uuid=", b"uuid=0", "is of another table"),
    "role": (b"role=weight", b"role=count", "holds another column"),
    "dtype": (b"<f4", b"<i4", "holds another dtype: '<i4'"),
    "object dtype": (b"<f4", b"|O", r"holds another dtype: '\|O'"),
    "order": (b"False", b"True", "fortran_order is True"),
    "shape": (b"(5, 3)", b"(1000000000, 3)", r"another shape: \(1000000000, 3\)"),
    "version": (b"mmembed 1", b"mmembed 2", "another format version: 2"),
}


@pytest.mark.parametrize(("old", "new", "message"), HEADER_FORGERIES.values(), ids=HEADER_FORGERIES)
def test_a_forged_header_is_refused_and_nothing_changes(small, old, new, message):
    data = (small / "weight.npy").read_bytes()
    assert old in data[:4096]
    forged = resealed_header(data[:4096].replace(old, new, 1))
    (small / "weight.npy").write_bytes(forged + data[4096:])

    refuse(small, f"weight.npy {message}" if message[:2] == "is" else message)


def test_fields_that_may_have_any_value_are_believed(small):
    for offset, kind, value in [(48, "<Q", 2**64 - 1), (64, "<Q", 77), (88, "<B", 1)]:
        change_copies(small, put(offset, kind, value))

    with Table.open(small) as table:
        assert (table.step, table.durability) == (2**64 - 1, "process")


@pytest.mark.parametrize("byte", [0, 8, 24, 48, 96, 300, 8191])
def test_one_flipped_byte_in_super_is_healed_by_its_twin(small, byte):
    for copy in (0, COPY_BYTES):
        data = bytearray((small / "super").read_bytes())
        data[copy + byte] ^= 0x10
        (small / "super").write_bytes(data)

        with Table.open(small, "r+") as table:
            assert (table.step, table.clean) == (7, True)


def test_a_table_that_lost_its_newest_slot_is_not_taken_for_the_commit_before(small):
    with Table.open(small, "r+") as table:
        table.commit(step=8)
        table.commit(step=9)
    data = bytearray((small / "super").read_bytes())
    data[0] ^= 1
    data[COPY_BYTES] ^= 1
    (small / "super").write_bytes(data)

    refuse(small, r"undo is the journal of commit 5, and `super` knows 3: .*newest slot is lost")


def test_nothing_at_the_path_is_not_found(tmp_path):
    for mode in ("r", "r+"):
        with pytest.raises(TableNotFoundError, match=r"no table at .*x; Table.create makes one"):
            Table.open(tmp_path / "x", mode)
        with pytest.raises(FileNotFoundError):
            Table.open(tmp_path / "y" / "x", mode)


def test_a_file_is_not_a_table(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5, 3)))

    refuse(tmp_path / "x.npy", "x.npy is not a directory, and a table is one")


def test_an_empty_directory_is_not_a_table(tmp_path):
    (tmp_path / "x").mkdir(mode=0o700)

    refuse(tmp_path / "x", "is missing: not a table, or an incomplete copy of one")


def test_a_table_without_its_lock_can_be_read_but_not_written(small):
    (small / "LOCK").unlink()

    with Table.open(small) as table:
        assert table.step == 7
    with pytest.raises(CorruptTableError, match="LOCK is missing"):
        Table.open(small, "r+")


def test_a_mode_that_is_none_is_refused(small):
    with pytest.raises(ValueError, match="mode must be 'r' or 'r\\+', got 'w'"):
        Table.open(small, "w")


@pytest.mark.parametrize("name", [".", "super", "weight.npy", "count.npy"])
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_table_that_others_may_write_to_is_refused_unless_allowed(small, name, mode):
    (small / name).chmod(mode | (0o100 if name == "." else 0))

    refuse(small, "so others may write to it: chmod go-w it", UntrustedTableError)
    with Table.open(small, allow_foreign=True) as table:
        assert table.step == 7


@pytest.mark.parametrize("name", [".", "super", "weight.npy"])
def test_a_table_of_another_user_is_refused_unless_allowed(small, name, monkeypatch):
    if os.geteuid() == 0:
        os.chown(small / name, 12345, -1)
    else:
        monkeypatch.setattr(files_module.os, "geteuid", lambda: 12345)

    refuse(small, "belongs to user .* chown it, or allow_foreign=True", UntrustedTableError)
    with Table.open(small, "r+", allow_foreign=True) as table:
        assert table.step == 7


def test_a_big_endian_machine_is_refused(small, path, monkeypatch):
    monkeypatch.setattr(sys, "byteorder", "big")

    with pytest.raises(OSError, match="this machine is big-endian"):
        Table.open(small)
    with pytest.raises(OSError, match="this machine is big-endian"):
        Table.create(small.with_name("other"), 5, 3)
    assert not small.with_name("other").exists()


def test_a_refused_table_leaves_no_descriptor_and_no_lock(small):
    truncate("count.npy", 5)(small)
    gc.collect()  # what other tests left open
    before = os.listdir("/proc/self/fd")

    for mode in ("r", "r+"):
        with pytest.raises(CorruptTableError):
            Table.open(small, mode)

    assert os.listdir("/proc/self/fd") == before
