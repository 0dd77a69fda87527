"""A random training run, on a table and on plain arrays: what a table must be at every commit.

Nothing here uses the library's own idea of undoing: a `Model` copies all arrays at each commit.
"""

from __future__ import annotations

import contextlib

import numpy as np

from mmembed.storage import Table
from mmembed.storage.checks import wrong_rows
from mmembed.storage.column import column_seed
from mmembed.storage.initial import Initial

COMMIT_EVERY = 7
MOST_ROWS = 1200


def initial(name: str, shape: tuple[int, ...], init: str) -> np.ndarray:
    """The rows of a column that nobody has written to, in a table of seed 0."""
    rows = np.empty(shape, np.float32)
    Initial.parse(init).fill(rows, 0, column_seed(0, name))
    return rows


class Model:
    """Columns as plain arrays, with the part of `Table` that a run uses."""

    def __init__(self, rows: int, dim: int) -> None:
        self.inits = {"weight": "normal"}
        self.arrays = {"weight": initial("weight", (rows, dim), "normal")}
        self.counters: dict[str, int] = {}
        self.step = 0
        self.commit(0)

    @property
    def rows(self) -> int:
        return len(self.arrays["weight"])

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.arrays)

    def will_write(self, rows: np.ndarray) -> None:
        pass

    @contextlib.contextmanager
    def writing(self, rows: np.ndarray | None = None):
        yield self.arrays

    def add_column(self, name: str, *, scalar: bool = False, init: str = "zeros") -> None:
        if name not in self.arrays:
            shape = (self.rows,) if scalar else self.arrays["weight"].shape
            self.inits[name] = init
            self.arrays[name] = initial(name, shape, init)

    def grown(self, arrays: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """The arrays with the initial values of further rows behind them."""
        made = {}
        for name, array in arrays.items():
            made[name] = initial(name, (rows, *array.shape[1:]), self.inits[name])
            made[name][: len(array)] = array
        return made

    def resize(self, rows: int) -> None:
        self.arrays = self.grown(self.arrays, rows)

    def count(self, name: str, value: int) -> None:
        self.counters[name] = value

    def commit(self, step: int) -> None:
        self.step = step
        copies = {name: array.copy() for name, array in self.arrays.items()}
        self.committed = copies, dict(self.counters)

    def rollback(self) -> None:
        arrays, counters = self.committed
        self.arrays = self.grown(arrays, self.rows)
        self.counters = dict(counters)


def create(
    path, durability: str = "power", rows: int = 500, dim: int = 5, layout: str = "columns"
) -> Model:
    """Create a table for runs; returns its model. Records have a column beside `weight`.

    `layout` : that of the table, or "lazy", which has columns: one of them zeros, without bits; or
    "checked", which has columns and checksums of their rows.
    """
    lazy = layout == "lazy"
    beside = {"weight.sum": {"scalar": True, "init": "ones"}} if layout == "records" else {}
    if lazy:
        beside = {"state": {"init": "zeros"}}
    checked = layout == "checked"
    options = {"layout": "columns" if lazy or checked else layout, "columns": beside}
    options |= {"lazy": lazy, "checksums": checked}
    Table.create(path, rows, dim, durability=durability, **options).close()
    model = Model(rows, dim)
    for name, how in beside.items():
        model.add_column(name, **how)
    model.commit(0)
    return model


def train_step(target, attempt: int, step: int) -> None:
    """Change a table, or a model, as step `step` of attempt `attempt` does."""
    rng = np.random.default_rng([attempt, step])
    kind = rng.random()
    if kind < 0.04:
        target.add_column("weight.sum", scalar=True, init="ones")
    elif kind < 0.06:
        target.add_column("context", init="uniform(-1, 1)")
    elif kind < 0.10 and target.rows < MOST_ROWS:
        target.resize(target.rows + int(rng.integers(1, 40)))
    elif kind < 0.13:
        target.rollback()
    elif kind < 0.16:
        with target.writing() as columns:
            for name in sorted(columns):
                columns[name][...] *= np.float32(0.75)
    target.count("steps", step)
    rows = np.unique(rng.integers(0, target.rows, rng.integers(1, 60)))
    if rng.random() < 0.5:
        target.will_write(rows)
    with target.writing(rows) as columns:
        for name in sorted(columns):
            shift = rng.standard_normal(np.shape(columns[name][rows]), np.float32)
            columns[name][rows] = columns[name][rows] * np.float32(0.5) + shift


def train(target, attempt: int, start: int, stop: int, on_commit=lambda step: None) -> None:
    """Make the steps start + 1 .. stop, with a commit at each multiple of COMMIT_EVERY."""
    for step in range(start + 1, stop + 1):
        train_step(target, attempt, step)
        if step % COMMIT_EVERY == 0:
            target.commit(step=step)
            on_commit(step)


def check(table: Table, model: Model) -> None:
    """The table is the model's last commit, to the bit, perhaps with more rows than it had then."""
    arrays, counters = model.committed
    assert table.step == model.step
    assert table.counters == counters
    assert table.columns == tuple(arrays)
    assert table.rows >= len(arrays["weight"])
    for name, array in model.grown(arrays, table.rows).items():
        assert np.array_equal(table.read(column=name), array), name
    if table.checksums:
        assert denied(table.path) == {}


def denied(path) -> dict[str, list[int]]:
    """Return the rows of the last commit that are not what their checksums say, by column."""
    with Table.open(path, view="committed") as reader:
        columns = {column.name: column for column in reader._store.superblock.columns}
        pairs = [(columns[c.checks], c) for c in columns.values() if c.checks is not None]
        found = {of.name: [*wrong_rows(reader, of, sums)] for of, sums in pairs}
    return {name: np.concatenate(rows).tolist() for name, rows in found.items() if rows}
