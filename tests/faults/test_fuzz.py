"""Damaged files: the table is at its last commit, or refused with a reason; never silently wrong.

Damage to rows is left out: they have no checksums.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import zlib

import pytest

from mmembed.errors import CorruptTableError, MmembedError
from mmembed.storage import Table, journal_format
from mmembed.storage.format import HEADER_BYTES
from tests.storage.examples import change_copies

from . import calls, replay

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def flip(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def overwrite(data: bytearray, chance: random.Random) -> None:
    at, size = chance.randrange(len(data)), chance.choice([1, 4, 8, 64, 512])
    size = min(size, len(data) - at)
    data[at : at + size] = chance.choice([bytes(size), chance.randbytes(size), b"\xff" * size])


def cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def extend(data: bytearray, chance: random.Random) -> None:
    data += chance.randbytes(chance.choice([1, 8, 4096]))


def move(data: bytearray, chance: random.Random) -> None:
    size = chance.choice([8, 512, 4096])
    source, target = (chance.randrange(max(1, len(data) - size)) for _ in range(2))
    data[target : target + size] = data[source : source + size]


KINDS = [flip, flip, flip, overwrite, overwrite, cut, extend, move]


def damage(path, chance: random.Random) -> str:
    """Damage one file; returns which and how."""
    name = chance.choice(["super", "super", "undo", "undo", "undo", "weight.npy"])
    kind = chance.choice(KINDS)
    data = bytearray((path / name).read_bytes())
    if name == "weight.npy":
        rows = bytes(data[HEADER_BYTES:])
        del data[HEADER_BYTES:]
        kind(data, chance)
        data += rows
    else:
        kind(data, chance)
    (path / name).write_bytes(data)
    return f"{kind.__name__} {name}"


def verdict(path, model: replay.Model) -> str:
    """Return "refused" or "right"; anything else raises."""
    try:
        Table.open(path).close()
        with Table.open(path, "r+") as table:
            replay.check(table, model)
    except MmembedError as error:
        return "refused" if str(error).count("\n") == 0 else "refused in several lines"
    return "right"


def fuzz(path, cases: int, seed: int) -> dict[str, int]:
    """Damage a table with a hot journal in so many ways."""
    template = path.with_name("template")
    model = calls.hot_table(template, "power")
    chance = random.Random(seed)
    found = {"refused": 0, "right": 0}
    for _ in range(cases):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(template, path)
        what = damage(path, chance)
        try:
            found[verdict(path, model)] += 1
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from None
    return found


def fuzzed(path, patch=None):
    found = fuzz(path, 1500, seed=1)

    assert found["refused"] > 300
    assert found["right"] > 300


def test_random_damage_is_noticed_or_harmless(quick_path):
    fuzzed(quick_path)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 110))
def test_much_random_damage_is_noticed_or_harmless(quick_path, seed):
    fuzz(quick_path, 100_000, seed)


# Damage with checksums that fit.


def resealed_record(undo: bytes, at: int, change: bytes) -> bytes:
    """The journal with bytes of its first record changed, and its checksum right."""
    rows = struct.unpack_from("<I", undo, 4096 + 48)[0]
    size = journal_format.RECORD.size + -(-8 * rows // 8) * 8 + -(-12 * rows // 8) * 8
    record = bytearray(undo[4096 : 4096 + size])
    record[at : at + len(change)] = change
    record[4:8] = struct.pack("<I", zlib.crc32(record[8:]))
    return undo[:4096] + bytes(record) + undo[4096 + size :]


def hot(path):
    """A table with one record of one column in its journal, and its files."""
    from . import kills

    model = replay.create(path, "power", rows=60, dim=3)

    def change(_):
        Table.open(path, "r+").write([3, 5, 9], 1)
        os._exit(0)

    kills.reports(*kills.in_child(change))
    return model


FORGERIES = {
    "magic": (0, b"UNDX"),
    "uuid": (8, bytes(16)),
    "commit": (24, struct.pack("<Q", 5)),
    "number": (32, struct.pack("<Q", 1)),
    "bytes of a row": (40, struct.pack("<Q", 8)),
    "rows": (48, struct.pack("<I", 2**32 - 1)),
    "checksum before": (52, struct.pack("<I", 1)),
    "kind": (56, struct.pack("<I", 1)),
    "zeros": (60, struct.pack("<I", 1)),
    "an id that is negative": (64, struct.pack("<q", -1)),
    "an id that is too large": (64, struct.pack("<q", 60)),
    "an id beyond any": (64, struct.pack("<q", 2**62)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_record_is_refused_and_nothing_changes(quick_path, forgery):
    hot(quick_path)
    undo = (quick_path / "undo").read_bytes()
    (quick_path / "undo").write_bytes(resealed_record(undo, *FORGERIES[forgery]))
    before = {file.name: file.read_bytes() for file in quick_path.iterdir()}

    with pytest.raises(CorruptTableError, match=r"undo(: record 0| has 0 whole records)"):
        Table.open(quick_path, "r+")
    assert before == {file.name: file.read_bytes() for file in quick_path.iterdir()}


def resealed(path, chance: random.Random) -> None:
    """Damage a field of `super`, of a header of the journal or of its first record, and seal it."""
    what = chance.choice(["super", "header", "record"])
    at, change = chance.randrange(0, 128), chance.randbytes(chance.choice([1, 2, 4, 8]))
    if what == "super":
        change_copies(path, lambda body: body[:at] + change + body[at + len(change) :])
        return
    undo = (path / "undo").read_bytes()
    if what == "record":
        (path / "undo").write_bytes(resealed_record(undo, at % 96, change))
        return
    body = bytearray(undo[:48])
    body[at % 40 : at % 40 + len(change)] = change
    sealed = bytes(body[:48]) + struct.pack("<I", zlib.crc32(body[:48]))
    (path / "undo").write_bytes(sealed + undo[52:])


def fuzz_resealed(path, cases: int, seed: int) -> dict[str, int]:
    """Damage and seal again so many times: a table is refused by an error of ours, or opens."""
    template = path.with_name("template")
    template.parent.mkdir(exist_ok=True)
    hot(template)
    chance = random.Random(seed)
    found = {"refused": 0, "opened": 0}
    for _ in range(cases):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(template, path)
        resealed(path, chance)
        try:
            Table.open(path).close()
            Table.open(path, "r+").close()
            found["opened"] += 1
        except MmembedError:
            found["refused"] += 1
    return found


def test_damage_that_was_sealed_again_is_refused_or_a_table(quick_path):
    found = fuzz_resealed(quick_path, 500, seed=1)

    assert found["refused"] > 100


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_much_damage_that_was_sealed_again_is_refused_or_a_table(quick_path, seed):
    fuzz_resealed(quick_path, 20_000, seed)


def forged_ids(path, patch=None):
    test_a_forged_record_is_refused_and_nothing_changes(path, "an id that is too large")


def test_the_journal_of_another_table_is_refused(quick_path):
    hot(quick_path)
    other = quick_path.with_name("other")
    replay.create(other)
    shutil.copy(other / "undo", quick_path / "undo")

    for mode in ("r", "r+"):
        with pytest.raises(CorruptTableError, match="is the journal of another table: its uuid"):
            Table.open(quick_path, mode)


def test_a_journal_without_header_is_refused(quick_path):
    hot(quick_path)
    with open(quick_path / "undo", "r+b") as file:
        file.write(bytes(1024))

    for mode in ("r", "r+"):
        with pytest.raises(CorruptTableError, match="undo has no valid header"):
            Table.open(quick_path, mode)


def test_older_files_of_the_same_table_are_refused(quick_path):
    with Table.create(quick_path, 9, 3) as table:
        table.commit()
        old = (quick_path / "undo").read_bytes()
        for _ in range(3):
            table.commit()
    (quick_path / "undo").write_bytes(old)

    with pytest.raises(CorruptTableError, match="undo is the journal of commit 2"):
        Table.open(quick_path)
