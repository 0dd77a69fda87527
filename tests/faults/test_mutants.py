"""The harnesses are tested: each catches the mistakes that it is there for."""

from __future__ import annotations

import pytest

from mmembed.storage import format, journal_format, recovery
from mmembed.storage.directory import DirectoryStore
from mmembed.storage.health import Health
from mmembed.storage.journal import Journal
from mmembed.storage.lazy import LazyColumn
from mmembed.storage.opened import Opened
from mmembed.storage.superfile import SuperFile
from tests.storage import test_bad_files
from tests.storage import test_crash as crashes
from tests.storage.examples import small_table
from tests.storage.mutation import put_in

from . import blocks, calls, cuts, kills, places, test_fuzz, test_power, test_super

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def killed(path, patch):
    """kill -9 at random moments."""
    kills.Campaign(path, "process", seed=5).run(40)


def lose_power(path, durability, attempts, draws, chosen, layout="columns"):
    for attempt in attempts:
        folder = path.with_name(f"a{attempt}")
        folder.mkdir()
        test_power.check_losses(folder / "t", durability, attempt, draws, chosen, layout)


def power_lost(path, patch):
    """Losses of power over the model disk."""
    lose_power(path, "power", (53, 23), draws=12, chosen=1500)


def power_cut(path, patch):
    """A file system of its own, shut down at random."""
    places.need("ext4")
    cuts.Cuts("ext4", seed=4).run(40)


def blocks_recorded(path, patch):
    """A file system over a disk that records, and what that disk may have kept."""
    places.need("ext4")
    places.need("fuse")
    blocks.Campaign("ext4", seed=6).run(200)


def power_lost_unsynced(path, patch):
    """The same at level `process`, where they must be noticed."""
    lose_power(path, "process", (2, 3), draws=20, chosen=1500)


def lazy_killed(path, patch):
    """kill -9 of trainers of a lazy table."""
    kills.Campaign(path, "process", seed=5, layout="lazy").run(40)


def lazy_power_lost(path, patch):
    """Losses of power over the model disk, under a lazy table."""
    lose_power(path, "power", (53, 23), draws=12, chosen=1500, layout="lazy")


def last_call(path, patch):
    """kill -9 right after any system call."""
    template = path.with_name("template")
    model = calls.hot_table(template, "power")
    calls.every_call(template, path, model, 3, deadly=True, interrupt=True)


SAVE = "self._files.journal.save(rows, self._files.old_rows())"
COUNT = "self._pending = True\n        self._cadence.wrote()"
DOOR = (
    "door = _Door(self._files.columns, self._unsynced, rows)\n        self._unsummed.append(door)"
)
GIVEN = f"{DOOR}\n        try:\n            yield door"
THEN = f"finally:\n            {SAVE}\n        try:\n            pass"
MUTANTS = {
    "rows change before the journal has them": (
        DirectoryStore, "writing", SAVE, "pass",
        killed,
    ),
    "journal written after the store": (
        DirectoryStore, "writing", f"{SAVE}\n        {COUNT}\n        {GIVEN}",
        f"{COUNT}\n        {GIVEN}\n        {THEN}", killed,
    ),
    "journal not synced before the store": (
        Journal, "_append", "if self._power:", "if False:", power_lost,
    ),
    "journal not synced before the store, on a real file system": (
        Journal, "_append", "if self._power:", "if False:", power_cut,
    ),
    "rows not synced at a commit, on a real file system": (
        DirectoryStore, "_flush", "memory.flush()", "pass", power_cut,
    ),
    "journal not synced before the store, on a disk that records": (
        Journal, "_append", "if self._power:", "if False:", blocks_recorded,
    ),
    "super before the rows, on a disk that records": (
        DirectoryStore, "commit", "            if power:\n                self._flush()",
        "            last.record(superblock, sync=power)\n            if power:\n"
        "                self._flush()", blocks_recorded,
    ),
    "super before the rows": (
        DirectoryStore, "commit", "            if power:\n                self._flush()",
        "            last.record(superblock, sync=power)\n            if power:\n"
        "                self._flush()", power_lost,
    ),
    "rows not synced at a commit": (
        DirectoryStore, "_flush", "memory.flush()", "pass", power_lost,
    ),
    "journal begun anew before super": (
        DirectoryStore, "commit", "            last.record(superblock, sync=power)\n",
        "            log.begin(superblock.commits + 1, log.attempt, Layout(()), 60)\n"
        "            last.record(superblock, sync=power)\n", last_call,
    ),
    "rows put back and not synced": (
        DirectoryStore, "_put_back", "self._flush()", "pass", power_lost,
    ),
    "the attempt stays": (
        DirectoryStore, "_recover", "max(newest.attempt, log.attempt) + 1", "newest.attempt",
        last_call,
    ),
    "the attempt stays at a rollback": (
        DirectoryStore, "rollback", "log.attempt + 1", "log.attempt", last_call,
    ),
    "the clean mark is not removed first": (
        DirectoryStore, "_recover", "clean=False", "clean=newest.clean", power_lost_unsynced,
    ),
    "clean before the rows are synced": (
        DirectoryStore, "_mark_clean", "            self._flush()\n",
        "            last.rewrite(replace(last.last, clean=True))\n            self._flush()\n",
        power_lost_unsynced,
    ),
    "marks not synced": (
        SuperFile, "rewrite", "self.file.sync()", "pass", power_lost_unsynced,
    ),
    "the directory is not synced": (
        DirectoryStore, "add", "self._files.directory.sync()", "pass", power_lost,
    ),
    "boots not compared": (
        Opened, "_check_boot", "superblock.boot_id != boot_id()", "False",
        power_lost_unsynced,
    ),
    "one slot of super for all epochs": (
        format, "slot_offset", "return SLOT_BYTES * (epoch & 1)", "return 0", test_super.torn_super,
    ),
    "both copies of a mark at once": (
        SuperFile, "rewrite",
        "self.file.write(copy, at)\n                self.file.sync()",
        "self.file.write(copy, at)\n            self.file.sync()", test_super.torn_super,
    ),
    "super not written again at an opening": (
        DirectoryStore, "_recover",
        "last.rewrite(replace(newest, attempt=attempt, boot_id=boot_id(), clean=False))",
        "last.last = replace(newest, attempt=attempt, boot_id=boot_id(), clean=False)",
        test_super.failed_sync,
    ),
    "confirmed ignored": (
        recovery, "examine", "if len(links) < header.confirmed", "if False", test_fuzz.fuzzed,
    ),
    "checksums of records ignored": (
        journal_format, "check_record", "!= checksum", "== -1", test_fuzz.fuzzed,
    ),
    "rows of records not checked": (
        recovery, "examine", "if ids.size and not", "if False and not", test_fuzz.forged_ids,
    ),
    "headers not compared with super": (
        recovery, "examine_header", "if header.commit not in", "if header.commit in () and",
        lambda path, patch: (
            test_bad_files.test_a_table_that_lost_its_newest_slot_is_not_taken_for_the_commit_before(
                small_table(path)
            )
        ),
    ),
    "the journal does not begin anew at a commit": (
        DirectoryStore, "commit", "self._begin(log.attempt, sync=False)", "pass",
        killed,
    ),
    "bits before the rows are on the disk": (
        DirectoryStore, "commit", "            if power:\n                self._flush()",
        "            for lazy in self._files.lazy_columns():\n"
        "                lazy.record(sync=power)\n"
        "            if power:\n                self._flush()", lazy_power_lost,
    ),
    "bits not synced before super": (
        LazyColumn, "record", "if sync:", "if False:", lazy_power_lost,
    ),
    "bits not recorded at a commit": (
        DirectoryStore, "commit", "lazy.record(sync=power)", "pass", lazy_killed,
    ),
    "blocks counted as written before their rows are": (
        LazyColumn, "write_blocks", "array[ids] = self.unwritten.values(ids)", "pass", lazy_killed,
    ),
    "the journal takes holes for rows": (
        Journal, "_take", "places.size:", "places.size > 1 << 40:", lazy_killed,
    ),
    "rows that come into a written block stay zeros": (
        LazyColumn, "extend", "if stop > before and", "if False and", lazy_killed,
    ),
    "rows without bits are not put back": (
        LazyColumn, "to_put_back", "differs.any(axis=1)", "differs.any(axis=1) & False",
        lazy_killed,
    ),
    "a failed write is forgiven": (
        Health, "fatal", "self.failure = error", "pass",
        lambda path, patch: (
            crashes.test_a_commit_that_fails_anywhere_ends_writing_and_is_done_or_not(
                small_table(path), patch, False
            )
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "name", "old", "new", "check"), MUTANTS.values(), ids=MUTANTS.keys()
)
def test_a_mistake_is_caught(quick_path, monkeypatch, owner, name, old, new, check):
    put_in(monkeypatch, owner, name, old, new)

    with monkeypatch.context() as patch, pytest.raises((Exception, pytest.fail.Exception)):
        check(quick_path, patch)


CHECKS = {id(mutant[-1]): mutant[-1] for mutant in MUTANTS.values()}


@pytest.mark.parametrize("check", CHECKS.values(), ids=lambda check: check.__qualname__)
def test_without_the_mistake_the_check_passes(quick_path, monkeypatch, check):
    check(quick_path, monkeypatch)
