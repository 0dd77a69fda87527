"""A model of the disk under a run: what of its files a loss of power can leave.

After each system call the files are looked at. What was synced is on the disk; of everything
written since, each sector may be there in any of the versions that it had, or torn between two.
Names are on the disk once their directory was synced, and may or may not be before.

It models what the kernel promises, and no more: whether the kernel keeps the promise is another
question.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from uuid import uuid4

import numpy as np
import pytest

from mmembed.errors import CorruptTableError, UncleanShutdownError
from mmembed.storage import Table, directory, opened
from tests.storage.faults import Faults

from . import calls, replay

SECTOR = 512


class Disk:
    """The files of a table, as written and as synced."""

    def __init__(self, path) -> None:
        self.path = path
        self.versions = {name: [data] for name, data in self._files().items()}
        self.named = set(self.versions)  # names that are on the disk for certain
        self.gone: dict[str, list[bytes]] = {}  # files whose names were removed, perhaps not there

    def _files(self) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in self.path.iterdir()}

    def look(self, call: str) -> None:
        """Take note of the files after a call."""
        kind, name = call.split()
        files = self._files()
        for missing in set(self.versions) - set(files):
            self.gone[missing] = self.versions.pop(missing)
        for file, data in files.items():
            versions = self.versions.setdefault(file, [data])
            if data != versions[-1]:
                versions.append(data)
        if kind in ("fdatasync", "msync"):
            self.versions[name] = [files[name]]
        if kind == "fsync":
            self.named, self.gone = set(files), {}

    def lose_power(self, chance: random.Random) -> dict[str, bytes]:
        """Files that may be found afterwards."""
        found = {}
        for name, versions in [*self.versions.items(), *self.gone.items()]:
            if (name in self.named and name not in self.gone) or chance.random() < 0.5:
                found[name] = _mixed(versions, chance)
        return found


def _mixed(versions: list[bytes], chance: random.Random) -> bytes:
    """A choice of sectors from all versions, one sector torn, and of one of the sizes."""
    if len(versions) == 1:
        return versions[0]
    if chance.random() < 0.2:
        return chance.choice(versions)
    longest = -(-max(map(len, versions)) // SECTOR) * SECTOR
    sectors = np.zeros((len(versions), longest // SECTOR, SECTOR), np.uint8)
    for number, data in enumerate(versions):
        sectors[number].reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
    odds = np.random.default_rng(chance.getrandbits(64))
    if chance.random() < 0.5:  # all of the newest or all of the oldest, but for a few
        pick = np.full(sectors.shape[1], chance.choice([0, len(versions) - 1]))
        few = odds.random(pick.size) < 0.1
        pick[few] = odds.integers(0, len(versions), np.count_nonzero(few))
    else:
        pick = odds.integers(0, len(versions), sectors.shape[1])
    mixed = sectors[pick, np.arange(pick.size)]
    torn, at = chance.randrange(pick.size), chance.randrange(SECTOR)
    mixed[torn, at:] = sectors[chance.randrange(len(versions)), torn, at:]
    return mixed.tobytes()[: chance.choice([len(data) for data in versions])]


class History:
    """A run from a hot journal on, with moments at which the power may go.

    Attributes
    ----------
    moments : for each, the disk's files, and the last step whose commit had returned.
    """

    def __init__(
        self,
        path,
        durability: str,
        attempt: int,
        chance: random.Random,
        layout: str = "columns",
    ) -> None:
        self.path, self.attempt, self.durability = path, attempt, durability
        self.chance = chance
        template = path.with_name("template")
        self.model = calls.hot_table(template, durability, layout)
        if durability == "process":  # where what matters is that the mark of a clean table goes
            Table.open(template, "r+").close()
        shutil.copytree(template, path)
        self.moments: list[tuple[dict[str, bytes], int]] = []
        self.disk = Disk(path)

    def run(self, draws: int, commits: int = 3) -> None:
        """Open the table, train and close it; at each call the power may go, `draws` times."""
        acknowledged = self.model.step

        def watch(call: str) -> None:
            self.disk.look(call)
            if call.split()[0] in ("fstat", "open", "pread"):
                return
            for _ in range(draws):
                self.moments.append((self.disk.lose_power(self.chance), acknowledged))

        def on_commit(step: int) -> None:
            nonlocal acknowledged
            acknowledged = step

        with pytest.MonkeyPatch.context() as patch, Faults().installed(patch) as faults:
            faults.watch = watch
            # Another thread's calls would not come one by one.
            patch.setattr(Table, "will_write", lambda table, rows: None)
            with Table.open(self.path, "r+") as table:
                start = table.step
                stop = start + commits * replay.COMMIT_EVERY
                replay.train(table, self.attempt, start, stop, on_commit)
                replay.train(table, self.attempt, stop, stop + 3)
                table.rollback()
            faults.watch = lambda call: None

    def check(self, chosen: int) -> dict[str, int]:
        """Open what is left at a choice of moments; returns how often what was found."""
        found = {"moved on": 0, "stayed": 0, "refused": 0}
        for files, acknowledged in self.chance.sample(self.moments, min(chosen, len(self.moments))):
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(mode=0o700)
            for name, data in files.items():
                (self.path / name).touch(mode=0o600)
                (self.path / name).write_bytes(data)
            with pytest.MonkeyPatch.context() as patch:
                for module in (directory, opened):  # the machine has started again
                    patch.setattr(module, "boot_id", uuid4)
                # Where nothing is synced, `super` itself may be torn.
                torn = (CorruptTableError,) if self.durability == "process" else ()
                with contextlib.suppress(UncleanShutdownError, *torn):
                    found["refused"] += 1
                    step = self._check_one(acknowledged)
                    found["refused"] -= 1
                    found["moved on" if step > acknowledged else "stayed"] += 1
        return found

    def _check_one(self, acknowledged: int) -> int:
        with Table.open(self.path, "r+") as table:
            following = (acknowledged // replay.COMMIT_EVERY + 1) * replay.COMMIT_EVERY
            assert table.step in (acknowledged, following)
            replay.check(table, calls.twin_at(self.model, self.attempt, table.step))
            return table.step
