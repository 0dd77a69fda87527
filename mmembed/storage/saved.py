"""Which rows the journal holds, and where, for readers: a set that only grows, in sorted runs.

Must not know files, or which records count.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .journal_format import Link
from .store import RowArray


class Found(NamedTuple):
    """Where rows are: for each, the record's first byte, its number of rows, the place in it.

    `of` says which of the rows asked for they are.
    """

    of: RowArray
    record: RowArray
    rows: RowArray
    place: RowArray


_NONE = Found(*([np.empty(0, np.int64)] * 4))


class _Run(NamedTuple):
    ids: RowArray  # ascending
    record: RowArray
    rows: RowArray
    place: RowArray


class SavedRows:
    """Rows in records, 32 bytes each. It never changes: `adding` returns another one.

    >>> from .journal_format import START
    >>> saved = SavedRows().adding(START, np.array([3, 7])).adding(START, np.array([5]))
    >>> saved.find(np.array([7, 4, 5])).of, saved.find(np.array([7, 4, 5])).place
    (array([0, 2]), array([1, 0]))
    """

    def __init__(self, runs: tuple[_Run, ...] = ()) -> None:
        """Begin with these runs."""
        self._runs = runs

    def adding(self, link: Link, ids: RowArray) -> SavedRows:
        """Return the set with the rows, ascending, of one more record, which begins at `link`."""
        if not ids.size:
            return self
        parts = (np.full_like(ids, link.at), np.full_like(ids, ids.size), np.arange(ids.size))
        runs = [*self._runs, _Run(ids.copy(), *parts)]
        # Each run is twice as long as the next, so that there are few.
        while len(runs) > 1 and runs[-2].ids.size < 2 * runs[-1].ids.size:
            last, before = runs.pop(), runs.pop()
            both = [np.concatenate(pair) for pair in zip(before, last, strict=True)]
            order = np.argsort(both[0], kind="stable")
            runs.append(_Run(*(part[order] for part in both)))
        return SavedRows(tuple(runs))

    def find(self, ids: RowArray) -> Found:
        """Return where those of some rows are that the set has; one that it has twice, twice."""
        found = []
        for run in self._runs:
            at = np.minimum(np.searchsorted(run.ids, ids), run.ids.size - 1)
            hits = np.flatnonzero(run.ids[at] == ids)
            if hits.size:
                at = at[hits]
                found.append(Found(hits, run.record[at], run.rows[at], run.place[at]))
        if len(found) < 2:
            return found[0] if found else _NONE
        return Found(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
