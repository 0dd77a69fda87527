"""Sealed tables: only read, and every flipped bit in their rows is found."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

from mmembed.errors import CorruptTableError, ReadOnlyTableError, TableFailedError, TableLockedError
from mmembed.storage import Table, seal, seals, unseal, verify
from mmembed.storage.files import Directory
from mmembed.storage.format import decode_super
from mmembed.storage.seals import examine_seal

from .faults import every_fault
from .test_verification import bad, flip


def test_a_sealed_table_is_read_and_not_written(small):
    table = Table.open(small, "r+")
    table.write([0], 5)

    table.seal()

    assert table.closed
    with pytest.raises(ReadOnlyTableError, match="mmembed unseal"):
        Table.open(small, "r+")
    with Table.open(small) as table:
        assert table[0].tolist() == [5, 5, 5]
    with pytest.raises(ReadOnlyTableError):
        seal(small)
    assert unseal(small)
    assert not unseal(small)
    Table.open(small, "r+").close()


def test_a_table_of_8_bits_can_be_sealed(small, tmp_path):
    with Table.open(small) as table:
        table.quantize(tmp_path / "q").seal()

    assert bad(tmp_path / "q", deep=True) == []


def test_what_a_writer_has_open_or_left_is_not_sealed(small):
    with Table.open(small, "r+"), pytest.raises(TableLockedError):
        seal(small)
    data = (small / "super").read_bytes()
    table = Table.open(small, "r+")
    hot = (small / "super").read_bytes()
    table.close()
    assert data != hot
    (small / "super").write_bytes(hot)

    with pytest.raises(TableFailedError, match="mmembed recover"):
        seal(small)


def test_a_table_in_memory_cannot_be_sealed():
    with Table.create(None, 2, 2) as table, pytest.raises(ValueError, match="in memory"):
        table.seal()


def test_every_flipped_byte_of_every_column_is_found(path, monkeypatch):
    monkeypatch.setattr(seals, "BLOCK_BYTES", 1024)
    with Table.create(path, 200, 7) as table:
        table.add_column("count", scalar=True)
        table.commit()
        table.seal()
    chance = random.Random(0)

    for _ in range(60):
        name = chance.choice(["weight.npy", "count.npy"])
        at = chance.randrange(4096, os.path.getsize(path / name))
        flip(path / name, at)
        assert bad(path) == []
        (found,) = [f for f in verify(path, deep=True) if f.state == "bad"]
        assert found.part == name
        assert f"at byte {at // 1024 * 1024}" in found.text
        flip(path / name, at)
    assert bad(path, deep=True) == []


def test_every_damage_to_a_seal_is_found(small):
    with Table.open(small, "r+") as table:
        table.seal()
    whole = (small / "seal").read_bytes()
    superblock = decode_super((small / "super").read_bytes())

    with Directory.open(str(small)) as directory:
        for at in range(len(whole)):
            (small / "seal").write_bytes(whole[:at])
            with pytest.raises(CorruptTableError):
                examine_seal(directory, superblock)
            flipped = bytearray(whole)
            flipped[at] ^= 1 << at % 8
            (small / "seal").write_bytes(flipped)
            with pytest.raises(CorruptTableError):
                examine_seal(directory, superblock)
    assert bad(small) == ["seal"]


def test_a_seal_of_another_commit_is_refused(small):
    with Table.open(small, "r+") as table:
        table.seal()
    old = (small / "seal").read_bytes()
    unseal(small)
    with Table.open(small, "r+") as table:
        table.write([1], 1)
        table.seal()
    (small / "seal").write_bytes(old)

    assert bad(small) == ["seal"]


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_sealing_that_fails_anywhere_leaves_a_seal_or_none(small, monkeypatch, interrupt):
    failed = 0
    for call, _, sealed in every_fault(
        lambda _: seal(small), monkeypatch, interrupt, lambda: unseal(small)
    ):
        failed += sealed is None
        names = os.listdir(small)
        assert not [name for name in names if ".tmp-" in name], call
        assert bad(small, deep=True) == []
        if sealed is None:
            with Table.open(small) as table:
                assert np.isfinite(table[:]).all()
    assert failed > 10
