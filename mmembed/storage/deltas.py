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

from ..errors import CorruptTableError, DeltaError, TableLockedError
from . import journal
from .changes import Changes
from .changes_format import Name
from .delta_format import Delta, as_target, checked_delta, encode_head, start
from .directory import DirectoryStore
from .files import Directory, File, draft_file, read_file
from .format import Superblock
from .journal import RECORD_BYTES
from .journal_format import START, Layout, check_record, rows_of, seal
from .recovery import read_records
from .snapshots import MovedError, standing, undisturbed
from .store import FloatArray, RowArray

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
        superblock = as_target(before.superblock)
        commit = self._first(changes, superblock, since, name)
        history = changes.history
        with draft_file(target) as file, self._open_rows() as store:
            blocks = changes.rows_since(commit, superblock.rows)
            link, rows = start(superblock), 0
            layout = Layout(superblock.columns)
            saved = _Saved(self.directory, before.superblock, before.header.commit)
            with saved.file:
                for ids in _in_records(blocks, layout):
                    record = np.zeros(layout.record_bytes(ids.size), np.uint8)
                    own, images = layout.parts(record, ids.size)
                    own[...] = ids
                    for column, image in images.items():
                        image[...] = store.array(column)[ids]
                    saved.put(ids, images)
                    commits, uuid = superblock.commits, superblock.uuid
                    at = link.at
                    link = seal(record, ids.size, layout, uuid, commits, link)
                    file.write(record.data, at)
                    rows += ids.size
            names = history.name(commit), history.name(superblock.commits)
            delta = Delta(commit, *names, superblock, link.number, rows, link.at)
            file.write(encode_head(delta), 0)
            if standing(self.directory) != before:
                raise MovedError
        return delta

    @contextlib.contextmanager
    def _open_rows(self) -> Iterator[DirectoryStore]:
        store = DirectoryStore.open(self.directory.path, "r", **self.directory.allowed)
        try:
            yield store
        finally:
            store.close()

    def _first(
        self, changes: Changes, superblock: Superblock, since: int | None, name: Name | None
    ) -> int:
        history, where = changes.history, self.directory.path
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


class _Saved:
    """The rows that the journal holds as they were at the last commit."""

    def __init__(self, directory: Directory, superblock: Superblock, commit: int) -> None:
        self.file = directory.open_file(journal.NAME)
        self._superblock = superblock
        self._layout = Layout(superblock.columns)
        self._commit = commit
        self._link = START
        self._records: list[tuple[int, int, RowArray]] = []

    def put(self, ids: RowArray, images: dict[str, FloatArray]) -> None:
        """Put what the journal holds by now into rows that were copied before."""
        if self._commit != self._superblock.commits + 1:
            return
        self._follow()
        for at, size, rows in self._records:
            place = np.minimum(np.searchsorted(rows, ids), rows.size - 1)
            there = np.flatnonzero(rows[place] == ids)
            if there.size:
                record = np.frombuffer(self.file.read(size, at), np.uint8)
                if record.size != size:
                    raise MovedError  # the writer has begun the journal anew, and cut it
                _, old = self._layout.parts(record, rows.size)
                for column, image in images.items():
                    image[there] = old[column][place[there]]

    def _follow(self) -> None:
        records = read_records(self.file, self._layout, self._superblock, self._commit, self._link)
        for link, record in records:
            ids, _ = self._layout.parts(record, rows_of(record))
            if ids.size:
                self._records.append((link.at, record.size, ids.copy()))
            following = check_record(record, link)
            assert following is not None  # it has just been checked
            self._link = following


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
