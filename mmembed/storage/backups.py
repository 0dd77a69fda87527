"""Copies of a table on disk: snapshots, and deltas between commits.

Must not know how any of them is made, nor how rows change.
"""

from __future__ import annotations

import os

from . import deltas
from .delta_format import Delta
from .directory import DirectoryStore
from .reading import Readable
from .snapshots import TIMEOUT, Copied, snapshot


class Copyable(Readable):
    """A table that can be copied; see `Table`, which is the class of every table."""

    def snapshot(
        self, path: str | os.PathLike[str], *, checked: bool = True, timeout: float = TIMEOUT
    ) -> Copied:
        """Copy the table on disk, as of its last commit, with its uuid and what lies beside it.

        What was written since that commit is not in the copy. The copy appears whole, closed and
        on the disk, or not at all. Any process may do this, and the writer may go on meanwhile;
        where it commits before the copying ends, that begins again. Blocks are shared where the
        file system can (reflink) and has room for both tables to change; holes stay holes.

        Parameters
        ----------
        path : the directory to make.
        checked : read the copy back from the disk and compare; of shared blocks there is no copy.
        timeout : seconds after which a writer's commits may make it fail.

        Returns
        -------
        Its `commits`, `step` and `rows`; how many rows were `put_back` in it; its `bytes`, and how
        many are `shared`.

        Raises
        ------
        TableExistsError  there is something at `path`.
        TableLockedError  a writer committed again and again.
        ValueError        the table is in memory.
        Errors of `open`, if the table's files are damaged; OSError if the disk is full.
        """
        where = self._open_store().path
        if where is None:
            raise ValueError("a table in memory has no files to copy; `copy.deepcopy` copies it")
        return snapshot(where, path, checked=checked, timeout=timeout, **self._allowed())

    def _allowed(self) -> dict[str, bool]:
        store = self._store
        return {"allow_foreign": store.allow_foreign, "allow_network_fs": store.allow_network_fs}

    def track_changes(self) -> None:
        """Mark from now on which rows a commit changed, so that `export_delta` finds them.

        That takes a file of 4 bytes for each row (for rows shorter than 256 bytes, for several),
        which commits write to. Copies of the table that are to be brought up to date by deltas are
        made after this. Nothing happens if changes are tracked already. Such a table has one writer
        at a time: it cannot be opened with `shared`.

        Raises
        ------
        ValueError  the table is in memory.
        OSError     the disk is full, for instance.
        ReadOnlyTableError, ClosedTableError, TableFailedError  see `writing`.
        """
        self._on_disk().track_changes()

    def export_delta(
        self,
        path: str | os.PathLike[str],
        *,
        since: int | None = None,
        base: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Delta:
        """Write a file with the rows that changed from a commit to the last one.

        What no commit has recorded is not in it. A writer may go on meanwhile; see `snapshot`.

        Parameters
        ----------
        path : the file to make; it appears whole or not at all.
        since : the number of the commit (`commits`) that the delta starts from.
        base : in its place, a copy of this table; the delta starts from its last commit.
        timeout : see `snapshot`.

        Returns
        -------
        What the delta holds: `superblock` (the commit), `since`, `records`, `rows`, `bytes`.

        Raises
        ------
        DeltaError   changes are not tracked, or not since then; `base` is no copy of this table, or
            has changed by itself.
        TypeError    neither `since` nor `base` is given, or both.
        FileExistsError  there is something at `path`.
        TableLockedError, ValueError, OSError  see `snapshot`.
        """
        where = self._on_disk().path
        assert where is not None
        return deltas.export_delta(
            where, path, since=since, base=base, timeout=timeout, **self._allowed()
        )

    def apply_delta(self, path: str | os.PathLike[str]) -> bool:
        """Bring a copy of a table to the commit that a delta leads to, in one commit.

        Every byte of the delta is checked before anything is written. A crash, or an error, leaves
        the commit before, but for a growth, which a second try finds done.

        Parameters
        ----------
        path : a file that `export_delta` made.

        Returns
        -------
        True; False if the table is at that commit already.

        Raises
        ------
        DeltaError         the delta does not start from this table's last commit, or there are
            changes that no commit recorded. Nothing has changed.
        CorruptTableError  the delta is damaged. Nothing has changed.
        OSError            the disk is full, for instance.
        ReadOnlyTableError, ClosedTableError, TableFailedError  see `writing`.
        """
        return deltas.apply_delta(self._on_disk(), path)[1]

    def _on_disk(self) -> DirectoryStore:
        store = self._open_store()
        if not isinstance(store, DirectoryStore):
            raise ValueError("a table in memory has no deltas; `copy.deepcopy` copies it")
        return store
