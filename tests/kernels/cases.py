"""Random inputs for kernels: the odd shapes are as likely as the ordinary ones."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import strategies as st


@dataclasses.dataclass(frozen=True)
class Case:
    """A batch of ids over a table, with an upstream gradient for each id."""

    rows: int
    dim: int
    dtype: str
    id_dtype: str
    layout: str
    read_only: bool
    threads: int
    ids: tuple[int, ...]
    seed: int

    @property
    def id_array(self):
        return np.array(self.ids, self.id_dtype)

    def numbers(self, *shape, salt=0):
        """Finite values of several sizes, some of them zero or negative zero."""
        rng = np.random.default_rng([self.seed, salt])
        values = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3, shape)
        values[rng.random(shape) < 0.1] = 0.0
        values[rng.random(shape) < 0.05] = -0.0
        return values.astype(self.dtype)

    def table(self, salt=1, *, positive=False, read_only=False):
        """A (rows, dim) table in the case's layout: contiguous, strided rows, or reversed rows."""
        values = self.numbers(self.rows, self.dim, salt=salt)
        if positive:
            values = np.abs(values)
        if self.layout == "strided":
            wide = np.full((self.rows, self.dim + 3), np.nan, self.dtype)
            table = wide[:, : self.dim]
        elif self.layout == "reversed":
            table = np.empty_like(values)[::-1]
        else:
            table = np.empty_like(values)
        table[...] = values
        if read_only:
            table.flags.writeable = False
        return table

    def values(self):
        return self.numbers(len(self.ids), self.dim, salt=2)

    def groups(self):
        """Positions of each distinct id, ids ascending: the plan, the slow way."""
        places = {}
        for position, row in enumerate(self.ids):
            places.setdefault(row, []).append(position)
        return dict(sorted(places.items()))

    def plan(self):
        """(order, unique, starts) made from `groups`."""
        groups = self.groups()
        order = [position for places in groups.values() for position in places]
        starts = np.cumsum([0, *(len(places) for places in groups.values())])
        return np.array(order, np.int64), np.array(list(groups), np.int64), starts.astype(np.int64)


@st.composite
def cases(draw, max_rows=12, max_dim=21, max_ids=40):
    rows = draw(st.integers(0, max_rows) | st.sampled_from([1, 2049]))
    dim = draw(st.sampled_from([0, 1, 2, 7, 8, 9, 16, max_dim]) if rows < 20 else st.just(1))
    low = st.integers(0, max(rows - 1, 0))
    # A small set of ids makes repeats common.
    some = draw(st.lists(low, min_size=1, max_size=6)) if rows else []
    ids = draw(st.lists(low | st.sampled_from(some), max_size=max_ids)) if rows else []
    return Case(
        rows=rows,
        dim=dim,
        dtype=draw(st.sampled_from(["float32", "float64"])),
        id_dtype=draw(st.sampled_from(["int32", "int64"])),
        layout=draw(st.sampled_from(["contiguous", "strided", "reversed"])),
        read_only=draw(st.booleans()),
        threads=draw(st.integers(1, 4)),
        ids=tuple(ids),
        seed=draw(st.integers(0, 10_000)),
    )
