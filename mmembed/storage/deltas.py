"""Making deltas of a table, and applying them to copies of it.

Must not know how changes are marked or recorded. A delta is made of one commit, whatever a writer
does meanwhile, in the order of `snapshots`: rows first, then the journal. It is applied through the
door, in one commit, after every byte of it was checked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..errors import CommitGoneError, CorruptTableError, DeltaError, TableLockedError
from .changes import Changes
from .changes_format import History, Name
from .delta_format import Delta, as_target, checked_delta, encode_head, start
from .directory import DirectoryStore
from .files import Directory, File, draft_file, read_file
from .format import Superblock
from .journal import RECORD_BYTES
from .journal_format import Layout, Link, rows_of, seal
from .recovery import read_records
from .snapshots import MovedError, standing, undisturbed
from .store import RowArray

_UNTRACKED = "`Table.track_changes`, or `mmembed delta track`, begins to; then take a snapshot"


def export_delta(
    source: str,
    path: str | os.PathLike[str],
    *,
    since: int | None,
    base: str | os.PathLike[str] | None,
    timeout: float,
    **allowed: bool,
) -> Delta:
    """Make a delta of the table at `source`; see `Table.export_delta`."""
    if (since is None) == (base is None):
        raise TypeError("a delta is made since a commit or for a base: give one of the two")
    target = os.path.abspath(os.fsdecode(path))
    name = None if base is None else _name_of(os.path.abspath(os.fsdecode(base)), allowed)

    def attempt(directory: Directory) -> Delta:
        return _Export(directory).run(target, since, name)

    return undisturbed(source, attempt, timeout, allowed)


def _name_of(path: str, allowed: dict[str, bool]) -> Name:
    """Return the name of the last commit of the table at `path`."""
    with Directory.open(path, **allowed) as directory:
        try:
            superblock = standing(directory).superblock
        except MovedError:
            raise TableLockedError(f"{path}, the base, is being written to") from None
        return _tracked(directory, superblock).history.name(superblock.commits)


def _tracked(directory: Directory, superblock: Superblock) -> Changes:
    """Return what is marked; the maps of it stay when it is closed."""
    changes = Changes.open(directory, superblock, writable=False)
    if changes is None:
        raise DeltaError(
            f"{directory.path} does not track its changes, or was changed by what does not: "
            f"{_UNTRACKED}"
        )
    changes.close()
    return changes


class _Export:
    """One try at making a delta."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory

    def run(self, target: str, since: int | None, name: Name | None) -> Delta:
        """Write the delta of what changed since a commit, given by its number or its name."""
        before = standing(self.directory)
        try:
            changes = _tracked(self.directory, before.superblock)
        except DeltaError:
            if standing(self.directory) != before:
                raise MovedError from None
            raise
        superblock, history = as_target(before.superblock), changes.history
        commit = self._first(history, superblock, since, name)
        with draft_file(target) as file:
            blocks = changes.rows_since(commit, superblock.rows)
            link, rows = self._write_rows(file, superblock, blocks)
            names = history.name(commit), history.name(superblock.commits)
            delta = Delta(commit, *names, superblock, link.number, rows, link.at)
            file.write(encode_head(delta), 0)
            # Each gather showed one commit; now all of them show the same.
            if standing(self.directory) != before:
                raise MovedError
        return delta

    def _write_rows(
        self, file: File, superblock: Superblock, blocks: Iterator[RowArray]
    ) -> tuple[Link, int]:
        """Write records of rows as they are at the last commit; returns the end, and how many."""
        from .table import Table  # which imports this module

        layout, link, rows = Layout(superblock.columns), start(superblock), 0
        reader = Table.open(
            self.directory.path,
            view="committed",
            allow_foreign=self.directory.allow_foreign,
            allow_network_fs=self.directory.allow_network_fs,
        )
        with reader as table, _moving():
            for ids in _in_records(blocks, layout):
                record = np.zeros(layout.record_bytes(ids.size), np.uint8)
                own, images = layout.parts(record, ids.size)
                own[...] = ids
                for column, image in images.items():
                    image[...] = table.gather(own, column=column)
                at, commits = link.at, superblock.commits
                link = seal(record, ids.size, layout, superblock.uuid, commits, link)
                file.write(record.data, at)
                rows += ids.size
        return link, rows

    def _first(
        self, history: History, superblock: Superblock, since: int | None, name: Name | None
    ) -> int:
        where = self.directory.path
        if name is not None:
            since = history.find(name)
            if since is None:
                raise DeltaError(
                    f"the last commit of the base is none that {where} knows since commit "
                    f"{history.since()}: it is not a copy of this table, or has changed by itself"
                )
        assert since is not None
        if not history.since() <= since <= superblock.commits:
            raise DeltaError(
                f"{where} knows which rows changed since the commits {history.since()}.."
                f"{superblock.commits}, and commit {since} was asked for"
            )
        return since


@contextlib.contextmanager
def _moving() -> Iterator[None]:
    """Take what a reader says of too many commits for what it is here: a reason to begin again."""
    try:
        yield
    except CommitGoneError:
        raise MovedError from None


def _in_records(blocks: Iterator[RowArray], layout: Layout) -> Iterator[RowArray]:
    most = max(1, RECORD_BYTES // (8 + layout.row_bytes))
    for ids in blocks:
        for first in range(0, ids.size, most):
            yield ids[first : first + most]


def read_delta(path: str | os.PathLike[str]) -> Delta:
    """Return what the delta at `path` says, having checked every byte; see `checked_delta`."""
    with read_file(os.path.abspath(os.fsdecode(path))) as file:
        return checked_delta(file)


def apply_delta(store: DirectoryStore, path: str | os.PathLike[str]) -> tuple[Delta, bool]:
    """Bring a table to the commit that a delta leads to; see `Table.apply_delta`."""
    store.check_writable()
    if store.pending:
        raise DeltaError(
            f"{store.path} has changes that no commit recorded; commit or roll back first"
        )
    with read_file(os.path.abspath(os.fsdecode(path))) as file:
        delta = checked_delta(file)
        if not _check_base(store, delta, file.path):
            return delta, False
        try:
            _apply(store, delta, file)
        except BaseException:
            with contextlib.suppress(Exception):  # it goes back when it is opened next
                store.rollback()
            raise
    return delta, True


def _check_base(store: DirectoryStore, delta: Delta, where: str) -> bool:
    """Raise DeltaError unless the delta follows on from the table; False if it is there already."""
    last, target = store.superblock, delta.superblock
    if last.uuid != target.uuid:
        raise DeltaError(
            f"{where} is of table {target.uuid}, and {store.path} is table {last.uuid}"
        )
    history = store.history()
    if history is None:
        raise DeltaError(f"{store.path} does not track its changes: {_UNTRACKED}")
    name = history.name(last.commits)
    if name == delta.name:
        return False
    if name != delta.base:
        raise DeltaError(
            f"{where} does not follow on from {store.path}: it starts from commit {delta.since} of "
            "the table that it was made of, and this one is at another commit, or has changed by "
            "itself"
        )
    known = target.columns[: len(last.columns)]
    if last.rows > target.rows or last.columns != known:
        raise DeltaError(
            f"{where} has {target.rows} rows of {[c.name for c in target.columns]}, and "
            f"{store.path} has others: {last.rows} rows of {[c.name for c in last.columns]}"
        )
    return True


def _apply(store: DirectoryStore, delta: Delta, file: File) -> None:
    target = delta.superblock
    last = store.superblock
    if target.rows > last.rows:
        store.resize(replace(last, rows=target.rows, other_rows=target.rows, epoch=last.epoch + 2))
    for column in target.columns[len(last.columns) :]:
        store.add(column)
    layout = Layout(target.columns)
    done = 0
    for _, record in read_records(file, layout, target, target.commits, delta.start()):
        ids, images = layout.parts(record, rows_of(record))
        with store.writing(ids) as columns:
            for name, image in images.items():
                columns[name][ids] = image
        done += 1
    if done != delta.records:
        raise CorruptTableError(f"{file.path} changed while it was applied")
    store.adopt(delta.name)
    last = store.superblock
    store.commit(
        replace(
            last,
            epoch=last.epoch + 1,
            commits=last.commits + 1,
            step=target.step,
            counters=target.counters,
            metadata=target.metadata,
        )
    )
