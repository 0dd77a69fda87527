"""Tables whose byte offsets pass 2**31 and 2**32, and more than 2**31 rows: sparse files."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(params=[(5 * 2**18, 1024), (2**31 + 64, 1)], ids=["wide", "long"])
def table(request, tmp_path):
    """5 GiB and 8 GiB of float32, of which only the rows that are written occupy space."""
    rows, dim = request.param
    path = tmp_path / "table"
    with open(path, "wb") as file:
        file.truncate(rows * dim * 4)
    return np.memmap(path, np.float32, "r+", shape=(rows, dim))


def ids_around_the_limits(table):
    row_bytes = table.shape[1] * 4
    at = [0, 2**31 // row_bytes, 2**32 // row_bytes, 2**31, table.shape[0] - 1]
    near = {row + shift for row in at for shift in (-1, 0, 1)}
    return np.array(sorted(row for row in near if 0 <= row < table.shape[0]), np.int64)


def plan_of(body, ids, rows):
    n = ids.size
    outs = [np.empty(size, np.int64) for size in (n, n, n + 1, 1)]
    assert body.plan(ids, rows, *outs, np.empty(2 * n, np.int64), 2) == -1
    order, unique, starts, count = outs
    return order, unique[: count[0]], starts[: count[0] + 1]


def test_kernels_reach_every_row_of_a_large_table(body, table):
    ids = ids_around_the_limits(table)
    batch = np.concatenate([ids, ids[::-1]])
    order, unique, starts = plan_of(body, batch, table.shape[0])
    values = np.repeat(np.arange(1, batch.size + 1, dtype=np.float32)[:, None], table.shape[1], 1)
    work = np.empty((2, table.shape[1]), np.float32)

    assert body.update_sgd(table, unique, values, order, starts, -1.0, 0.0, False, work, 2) == -1
    assert body.scatter_add(values, order, starts, unique, table, 2) == -1

    np.testing.assert_array_equal(unique, ids)
    out = np.empty((ids.size, table.shape[1]), np.float32)
    assert body.gather(table, ids, out, 2) == -1
    # Position i and its mirror image add up to 2 n + 1, twice: once per kernel.
    np.testing.assert_array_equal(out, np.full_like(out, 2 * (2 * ids.size + 1)))
    assert np.count_nonzero(table[ids[-1] - 5 : ids[-1] - 2]) == 0
    norms = np.empty(ids.size)
    assert body.row_norms(table, ids, np.inf, norms, 2) == -1
    np.testing.assert_array_equal(norms, out[:, 0])
    assert body.renorm(table, ids, 1.0, np.inf, 2) == -1
    np.testing.assert_allclose(table[ids], 1.0, rtol=1e-6)


def test_an_id_just_past_a_large_table_is_refused(body, table):
    ids = np.array([table.shape[0] - 1, table.shape[0]])

    assert body.first_bad_id(ids, table.shape[0], 1) == 1
    assert body.gather(table, ids, np.empty((2, table.shape[1]), np.float32), 1) == 1


@pytest.mark.parametrize("ids_dtype", [np.int32, np.int64])
@pytest.mark.parametrize("dim", [16, 50, 64])
@pytest.mark.parametrize("shift", [0, 4])
def test_gather_into_an_output_larger_than_the_cache(body, ids_dtype, dim, shift):
    """Rows and outputs of whole cache lines and others: such outputs may go past the cache."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((1000, dim), dtype=np.float32)
    n = (1 << 25) // (4 * dim) + 3
    ids = rng.integers(0, 1000, n).astype(ids_dtype)
    memory = np.empty(n * dim + 32, np.float32)
    first = -memory.ctypes.data % 64 // 4 + shift
    out = memory[first : first + n * dim].reshape(n, dim)

    assert body.gather(table, ids, out, 2) == -1

    np.testing.assert_array_equal(out, table[ids])
