"""`lookahead`: pages of coming batches are read from the disk while the present one is trained.

Must not know modules, optimizers or files: it sees batches, and tables that can be asked for rows.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from .autograd import is_grad_enabled
from .ids import as_ids
from .memory import limit
from .parameter import TableParameter
from .storage import Table
from .storage.column import whole_number
from .storage.pages import SHIFT, Prefetch, read_later

B = TypeVar("B")

Rows = Any  # a Table, a TableParameter, or a module with a weight or a table


def lookahead(
    batches: Iterable[B],
    tables: Rows | Sequence[Rows | None] | Mapping[Any, Rows],
    depth: int = 8,
    *,
    ids: Callable[[B], Any] | None = None,
) -> Lookahead[B]:
    """Yield batches as they come, having rows of coming ones read from the disk meanwhile.

    Reading ahead changes no row, so results are the same to the last bit. But batches are drawn up
    to `depth` earlier than without it: they must be objects of their own, not one buffer filled
    again, and random numbers for them must not be drawn from those that the model draws from.

    Parameters
    ----------
    batches : any iterable of batches of ids, such as a DataLoader; iterated anew by each loop.
    tables : whose rows the ids are: a table, a table's parameter, or an Embedding or EmbeddingBag.
        A mapping {key: table} takes the ids of a table from batch[key]. A sequence takes those of
        tables[i] from batch[i]; None stands for an entry without ids. With one table a batch is its
        ids; of a tuple or list of arrays, the first one.
    depth : read at most so many batches ahead. It begins with one, and one more is added whenever a
        batch is not in memory in time; rows waiting take a quarter of the memory at most.
    ids : called with a batch, returns what `tables` is applied to instead of the batch itself.

    Raises
    ------
    TypeError, ValueError  depth is not a number from 0 on, or something in `tables` has no table.

    What drawing a batch raises, and TypeError for ids that are not integers, comes when it would
    be that batch's turn. States of optimizers are read along where gradients are recorded;
    rows of a module, or of a parameter, then also go to the journal while the batch before is
    trained (see `Table.will_write`).

    >>> import mmembed as mm
    >>> table = mm.Table.create(None, 5, 2, init="ones")
    >>> for users, label in mm.lookahead([([0, 3], 1.0), ([2, 2], 0.0)], table):
    ...     print(table[users].sum(), label)
    4.0 1.0
    4.0 0.0
    """
    return Lookahead(batches, tables, depth, ids)


class Lookahead(Generic[B]):
    """What `lookahead` returns.

    Attributes
    ----------
    depth : how many batches are read ahead now.
    yielded, late : batches given out by the present loop, and those among them that were not in
        memory in time.
    """

    def __init__(
        self,
        batches: Iterable[B],
        tables: Rows | Sequence[Rows | None] | Mapping[Any, Rows],
        depth: int,
        ids: Callable[[B], Any] | None,
    ) -> None:
        """See `lookahead`."""
        self._batches = batches
        self._most = whole_number("depth", depth, 0, 2**31)
        self._ids = ids
        self._single = not isinstance(tables, Mapping | Sequence)
        entries = (
            tables.items()
            if isinstance(tables, Mapping)
            else enumerate([tables] if self._single else tables)
        )
        given = [(key, rows) for key, rows in entries if rows is not None]
        self._tables = [(key, _parameter(rows)) for key, rows in given]
        # A table by itself may be meant to be read.
        self._modules = {key for key, rows in given if not isinstance(rows, Table)}
        self.depth = min(1, self._most)
        self.yielded = self.late = 0

    def __len__(self) -> int:
        """Return the number of batches, if `batches` has one."""
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[B]:
        """Yield the batches, each with later ones on their way."""
        self.yielded = self.late = 0
        window = _Window(self._drawn(), (limit() // 4) >> SHIFT)
        try:
            while window.fill(self.depth):
                batch, prefetch = window.first()
                self._learn(prefetch)
                try:
                    yield batch
                finally:
                    prefetch.done()
        finally:
            window.forget()

    def _drawn(self) -> Iterator[tuple[B, Prefetch]]:
        for batch in self._batches:
            yield batch, self._read_later(batch)

    def _learn(self, prefetch: Prefetch) -> None:
        """Read further ahead if a batch is late; the first one always is."""
        if self.yielded and not prefetch.arrived():
            self.late += 1
            self.depth = min(self.depth + 1, self._most)
        self.yielded += 1

    def _read_later(self, batch: B) -> Prefetch:
        if self._most == 0:
            return Prefetch([])
        given: Any = batch if self._ids is None else self._ids(batch)
        if self._single and isinstance(given, tuple | list) and given and _is_batch(given[0]):
            given = given[0]
        parts = []
        for key, parameter in self._tables:
            flat = np.ascontiguousarray(as_ids(given if self._single else given[key])).reshape(-1)
            if parameter.table.on_disk:
                columns = _columns(parameter)
                parts += [(own, flat) for own in map(parameter.table.column_pages, columns)]
                if key in self._modules and _is_trained(parameter):
                    # A bad id is said when it is looked up.
                    with contextlib.suppress(IndexError):
                        parameter.table.will_write(flat.astype(np.int64), ordered=False)
        return read_later(parts)


class _Window(Generic[B]):
    """Batches that are on their way, and how to come by more."""

    def __init__(self, drawn: Iterator[tuple[B, Prefetch]], most_pages: int) -> None:
        self._drawn = drawn
        self._most_pages = most_pages
        self._waiting: deque[tuple[B, Prefetch]] = deque()
        self._pages = 0
        self._failure: Exception | None = None

    def fill(self, depth: int) -> bool:
        """Draw until `depth` batches wait behind the first; False if there is none at all.

        An error of drawing is raised when the batches drawn before it have been given out.
        """
        while self._failure is None and not self._is_full(depth):
            try:
                batch, prefetch = next(self._drawn)
            except StopIteration:
                break
            except Exception as error:
                self._failure = error
                break
            self._waiting.append((batch, prefetch))
            self._pages += prefetch.pages
        if self._failure is not None and not self._waiting:
            raise self._failure
        return bool(self._waiting)

    def _is_full(self, depth: int) -> bool:
        waiting = len(self._waiting)
        return waiting > depth or (waiting > 0 and self._pages >= self._most_pages)

    def first(self) -> tuple[B, Prefetch]:
        """Take out the first batch."""
        batch, prefetch = self._waiting.popleft()
        self._pages -= prefetch.pages
        return batch, prefetch

    def forget(self) -> None:
        """Give up what still waits."""
        for _, prefetch in self._waiting:
            prefetch.done()


def _is_batch(entry: object) -> bool:
    """Whether the first entry of a tuple or list is an array of ids, and not one id."""
    return isinstance(entry, tuple | list) or getattr(entry, "ndim", 0) > 0


def _columns(parameter: TableParameter) -> list[str]:
    """Return the columns that a step needs: the rows, and their states if they are trained."""
    table, own = parameter.table, parameter.column
    if not _is_trained(parameter):
        return [own]
    return [name for name in table.columns if name == own or name.startswith(f"{own}.")]


def _is_trained(parameter: TableParameter) -> bool:
    """Whether the rows that are looked up will change."""
    return parameter.table.mode != "r" and parameter.requires_grad and is_grad_enabled()


def _parameter(rows: Rows) -> TableParameter:
    """Return the rows that were meant, as a parameter."""
    if isinstance(rows, Table):
        return TableParameter(rows)
    weight = getattr(rows, "weight", rows)
    if not isinstance(weight, TableParameter):
        raise TypeError(
            "lookahead takes tables, parameters in tables, and modules with one; got "
            f"{type(rows).__name__}"
        )
    return weight
