"""Any sequence of operations leaves a table as it leaves a dict of arrays."""

from __future__ import annotations

import copy
import shutil
import tempfile

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mmembed.errors import ReadOnlyTableError
from mmembed.storage import Table
from mmembed.storage import column as columns
from mmembed.storage.column import column_seed
from mmembed.storage.initial import Initial

INITS = ["zeros", "ones", "normal", "uniform(-1, 1)"]
NAMES = ["context", "weight.sum", "count"]


class Machine(RuleBasedStateMachine):
    """A table in memory against its model."""

    on_disk = False
    lazy = False
    beside = ()  # columns that are made with the table, as records with `weight`

    def __init__(self):
        super().__init__()
        self.directory = tempfile.mkdtemp() if self.on_disk else None
        self.path = f"{self.directory}/t" if self.on_disk else None

    def whole(self, table, name):
        return table.column(name)

    def initial(self, name, shape, dtype, init):
        rows = np.empty(shape, dtype)
        Initial.parse(init).fill(rows, 0, column_seed(self.seed, name))
        return rows

    @initialize(
        rows=st.integers(0, 6),
        dim=st.integers(0, 3),
        dtype=st.sampled_from(["float32", "float64"]),
        init=st.sampled_from(INITS),
        seed=st.integers(0, 2**64 - 1),
        durability=st.sampled_from(["power", "process"]),
    )
    def create(self, rows, dim, dtype, init, seed, durability):
        arranged = {"layout": "records"} if self.beside else {}
        self.table = Table.create(
            *(self.path, rows, dim, dtype),
            init=init,
            seed=seed,
            durability=durability,
            lazy=self.lazy,
            columns={
                name: {"scalar": True, "init": "ones", "dtype": dtype} for name in self.beside
            },
            **arranged,
        )
        self.seed, self.dtype, self.dim = seed, dtype, dim
        self.columns = {"weight": self.initial("weight", (rows, dim), dtype, init)}
        self.specs = {"weight": (dim, False, init)}
        for name in self.beside:
            self.columns[name] = self.initial(name, (rows,), dtype, "ones")
            self.specs[name] = (dim, True, "ones")
        self.recorded = (0, 0, {}, list(self.columns), {})
        self.counters = {}
        self.changed = False
        self.committed = {name: column.copy() for name, column in self.columns.items()}

    @precondition(lambda self: self.table.mode == "r+")
    @rule(data=st.data())
    def write(self, data):
        name = data.draw(st.sampled_from(sorted(self.columns)))
        column = self.columns[name]
        limit = len(column) - 1
        ids = data.draw(st.lists(st.integers(0, limit), max_size=5) if limit >= 0 else st.just([]))
        shape = (len(ids), *column.shape[1:])
        values = np.arange(np.prod(shape)).reshape(shape) + data.draw(st.integers(-9, 9))
        self.table.write(ids, values, column=name)
        for row, value in zip(ids, values, strict=True):
            column[row] = value
        self.changed = True

    @precondition(lambda self: self.table.mode == "r+" and len(self.columns["weight"]))
    @rule(row=st.integers(0, 5), value=st.integers(-9, 9))
    def write_every_column_of_a_row(self, row, value):
        row %= len(self.columns["weight"])
        with self.table.writing(np.array([row])) as columns:
            for name in columns:
                columns[name][row] += value
        for column in self.columns.values():
            column[row] += np.array(value, self.dtype)
        self.changed = True

    @precondition(lambda self: self.table.mode == "r+")
    @rule(
        name=st.sampled_from(NAMES),
        dim=st.none() | st.integers(0, 2),
        scalar=st.booleans(),
        init=st.sampled_from(INITS),
    )
    def add_column(self, name, dim, scalar, init):
        spec = (self.dim if dim is None or scalar else dim, scalar, init)
        arguments = {"dim": None if scalar else dim, "scalar": scalar, "init": init}
        if self.specs.get(name, spec) != spec:
            with pytest.raises(ValueError, match="another column"):
                self.table.add_column(name, **arguments)
            return
        self.table.add_column(name, **arguments)
        if name not in self.specs:
            rows = len(self.columns["weight"])
            shape = (rows,) if scalar else (rows, spec[0])
            self.specs[name] = spec
            self.columns[name] = self.initial(name, shape, self.dtype, init)
            self.changed = True

    @precondition(lambda self: self.table.mode == "r+")
    @rule(more=st.integers(-1, 5))
    def resize(self, more):
        before = len(self.columns["weight"])
        rows = before + more
        if more < 0:
            with pytest.raises(ValueError, match=r"do not shrink|rows must be in"):
                self.table.resize(rows)
            return
        self.table.resize(rows)
        for name, column in self.columns.items():
            shape = (rows, *column.shape[1:])
            self.columns[name] = self.initial(name, shape, self.dtype, self.specs[name][2])
            self.columns[name][:before] = column
        self.recorded = (self.recorded[0], self.recorded[1] + 2 * bool(more), *self.recorded[2:])

    @precondition(lambda self: self.table.mode == "r+")
    @rule(name=st.sampled_from(["a.step", "b.step"]), value=st.integers(0, 2**64 - 1))
    def count(self, name, value):
        self.table.count(name, value)
        self.counters[name] = value
        self.changed = True

    @precondition(lambda self: self.table.mode == "r+")
    @rule(
        step=st.none() | st.integers(0, 2**63),
        metadata=st.none() | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    )
    def commit(self, step, metadata):
        self.table.commit(step, metadata)
        self.record(step, metadata)

    def go_back(self):
        """Everything is as the last commit recorded it, in as many rows as there are now."""
        rows = len(self.columns["weight"])
        self.specs = {name: self.specs[name] for name in self.recorded[3]}
        for name, committed in self.committed.items():
            shape = (rows, *committed.shape[1:])
            self.columns[name] = self.initial(name, shape, self.dtype, self.specs[name][2])
            self.columns[name][: len(committed)] = committed
        self.columns = {name: self.columns[name] for name in self.recorded[3]}
        self.counters = dict(self.recorded[4])
        self.changed = False

    def record(self, step, metadata):
        self.recorded = (
            self.recorded[0] + 1 if step is None else step,
            self.recorded[1] + 1,
            self.recorded[2] if metadata is None else metadata,
            list(self.columns),
            dict(self.counters),
        )
        self.committed = {name: rows.copy() for name, rows in self.columns.items()}
        self.changed = False

    @rule()
    def deep_copy(self):
        twin = copy.deepcopy(self.table)

        assert twin.columns == self.table.columns
        assert all(np.array_equal(twin.column(n), c) for n, c in self.columns.items())

    @invariant()
    def rows_are_those_of_the_model(self):
        assert self.table.columns == tuple(self.columns)
        for name, rows in self.columns.items():
            column = self.whole(self.table, name)
            assert column.dtype == rows.dtype
            assert np.array_equal(column, rows)
            ids = np.arange(len(rows))[::-1]
            assert np.array_equal(self.table.gather(ids, column=name), rows[ids])

    @invariant()
    def the_last_commit_is_that_of_the_model(self):
        table = self.table
        assert (table.step, table.epoch, table.metadata) == self.recorded[:3]
        assert table.counters == self.counters

    def teardown(self):
        if hasattr(self, "table"):
            self.table.close()
        if self.directory:
            shutil.rmtree(self.directory)


class DiskMachine(Machine):
    """The same on disk, where tables are also closed and opened."""

    on_disk = True

    @rule(commit=st.booleans(), mode=st.sampled_from(["r", "r+"]))
    def reopen(self, commit, mode):
        writing = self.table.mode == "r+"
        self.table.close(commit=commit)
        if writing and self.changed and commit:
            self.record(None, None)
        elif writing and self.changed:
            self.go_back()
        self.table = Table.open(self.path, mode)

        assert self.table.mode == mode
        assert self.table.clean

    @precondition(lambda self: self.table.mode == "r+")
    @rule()
    def roll_back(self):
        self.table.rollback()
        self.go_back()

    @precondition(lambda self: self.table.mode == "r+")
    @rule(rows=st.lists(st.integers(0, 5), max_size=4))
    def announce(self, rows):
        limit = len(self.columns["weight"])
        self.table.will_write(np.unique(np.array([r for r in rows if r < limit], np.int64)))

    @precondition(lambda self: self.table.mode == "r")
    @rule()
    def a_reading_table_takes_nothing(self):
        with pytest.raises(ReadOnlyTableError):
            self.table.write([], 0)
        with pytest.raises(ReadOnlyTableError):
            self.table.commit()

    @rule()
    def a_second_reader_sees_the_same(self):
        with Table.open(self.path) as reader:
            assert (reader.step, reader.epoch, reader.metadata) == self.recorded[:3]
            assert reader.counters == self.recorded[4]
            for name in self.recorded[3]:
                assert np.array_equal(reader.column(name), self.columns[name])

    @rule()
    def numpy_sees_the_same(self):
        for name in self.columns:
            assert np.array_equal(self.load(name), self.columns[name])

    def load(self, name):
        return np.load(f"{self.path}/{name}.npy")


class RecordsMachine(DiskMachine):
    """The same with a column beside `weight`; those that are added later have their own files."""

    beside = ("weight.sum",)

    def load(self, name):
        if name in ("weight", *self.beside):
            return np.load(f"{self.path}/records.npy")[name]
        return super().load(name)


class LazyMachine(DiskMachine):
    """The same without rows that nobody has written, in blocks of a few rows."""

    lazy = True

    def whole(self, table, name):
        return table.read(column=name)

    @rule()
    def a_second_reader_sees_the_same(self):
        """A block that no commit knows is as the last commit has it."""
        rows = len(self.columns["weight"])
        with Table.open(self.path) as reader:
            for name in self.recorded[3]:
                then = self.initial(name, self.columns[name].shape, self.dtype, self.specs[name][2])
                then[: len(self.committed[name])] = self.committed[name]
                found, now = reader.read(column=name), self.columns[name]
                assert all(
                    np.array_equal(found[row], now[row]) or np.array_equal(found[row], then[row])
                    for row in range(rows)
                )

    @precondition(lambda self: self.table.mode == "r+")
    @rule()
    def numpy_sees_the_same(self):
        self.table.materialize()
        super().numpy_sees_the_same()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(columns, "BLOCK_BYTES", 32)


@pytest.mark.parametrize("machine", [Machine, DiskMachine, RecordsMachine, LazyMachine])
def test_a_table_agrees_with_a_dict_of_arrays(machine):
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=25))


@pytest.mark.long
@pytest.mark.parametrize("machine", [Machine, DiskMachine, RecordsMachine, LazyMachine])
def test_a_table_agrees_with_a_dict_of_arrays_for_long(machine):
    run_state_machine_as_test(machine, settings=settings(max_examples=1500, stateful_step_count=60))
