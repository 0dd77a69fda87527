"""Contestants of `out_of_core`: who looks rows up, or trains them, in files larger than memory.

Must not know bounds, processes or what is measured. Every table has the rows that `first_rows`
describes, and a contestant is called with one batch of ids after the other.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mmembed as mm
from mmembed import kernels

DIM, BATCH = 64, 8192
OPTIMIZERS = {"SGD": 0, "Adagrad": 1, "SparseAdam": 2}  # columns of state
READERS = ("mmembed", "faults", "memmap", "memmap random", "LMDB", "RocksDB")
TRAINERS = ("mmembed", "mmembed, process", "mmembed, records", "torch")
Step = Callable[[np.ndarray], Any]


def batches(rows: int, skew: str, count: int, seed: int = 0, size: int = BATCH) -> np.ndarray:
    """Return (count, size) ids."""
    rng = np.random.default_rng(seed)
    if skew == "uniform":
        return rng.integers(0, rows, (count, size))
    cumulated = np.cumsum(np.arange(1, rows + 1, dtype=np.float64) ** -1.05)
    ranks = np.searchsorted(cumulated, rng.random((count, size)) * cumulated[-1])
    if skew == "contiguous":
        return ranks
    # An affine permutation scatters the ranks: 0x9E3779B97F4A7C15's high bits, made coprime.
    step = 0x9E3779B1 | 1
    while np.gcd(step, rows) != 1:
        step += 2
    return (ranks * step + 12345) % rows


def first_rows(ids: np.ndarray) -> np.ndarray:
    """Return what the first and last number of these rows are."""
    return np.stack([ids % 1009, ids % 997], -1).astype(np.float32)


def kind(name: str) -> dict[str, str]:
    """Return of which kind the table of a contestant is."""
    if name.endswith("records"):
        return {"durability": "power", "layout": "records"}
    return {"durability": "process" if name.endswith("process") else "power", "layout": "columns"}


def make_table(
    path: Path, rows: int, kind: dict[str, str] | None = None, state: Any = None
) -> None:
    """Write the table whose rows `first_rows` describes, with an optimizer's state."""

    def fill(first: int, values: np.ndarray) -> None:
        ids = np.arange(first, first + len(values))
        values[:, [0, -1]] = first_rows(ids)

    given: dict[str, Any] = {"init": "constant(0.5)", "fill": fill, "columns": state}
    mm.Table.create(path, rows, DIM, **given, **(kind or {})).close()


def forget(path: Path) -> None:
    """Let the system drop the pages of all files below `path`, as if nobody had read them yet."""
    for file in [path, *path.rglob("*")]:
        if file.is_file():
            fd = os.open(file, os.O_RDONLY)
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def reader(name: str, path: Path, rows: int) -> Step:
    """Return what looks up a batch of rows."""
    if name == "mmembed":
        table, out = mm.Table.open(path), np.empty((BATCH, DIM), np.float32)
        return lambda ids: table.gather(ids, out)
    if name == "faults":
        array, out = _map(path / "weight.npy", rows, "r"), np.empty((BATCH, DIM), np.float32)
        array.base.madvise(mmap.MADV_RANDOM)
        return lambda ids: (kernels.gather(array, ids, out), out)[1]
    if name.startswith("memmap"):
        given = np.load(path / "weight.npy", mmap_mode="r")
        if name == "memmap random":
            given._mmap.madvise(mmap.MADV_RANDOM)
        return lambda ids: given[ids]
    return _store(name, path, rows)


def _map(file: Path, rows: int, mode: str) -> Any:
    """Return the rows of a column's file, mapped plainly."""
    with open(file, "r+b" if mode == "r+" else "rb") as opened:
        access = mmap.ACCESS_WRITE if mode == "r+" else mmap.ACCESS_READ
        memory = mmap.mmap(opened.fileno(), 0, access=access)
    return np.ndarray((rows, DIM), np.float32, memory, mmap.PAGESIZE)


def _store(name: str, path: Path, rows: int) -> Step:
    """Return a lookup in a key-value store: a row per key, the key 8 bytes big-endian."""
    folder = str(path.parent / name)
    row_bytes = 4 * DIM
    if name == "LMDB":
        import lmdb

        environment = lmdb.open(
            folder, map_size=64 << 30, readonly=True, lock=False, readahead=False
        )

        def look_up(ids: np.ndarray) -> np.ndarray:
            with environment.begin(buffers=True) as transaction:
                keys = ids.astype(">i8").tobytes()
                found = [transaction.get(keys[i : i + 8]) for i in range(0, len(keys), 8)]
                return np.frombuffer(b"".join(found), np.float32).reshape(-1, DIM)

        return look_up
    import rocksdict

    database = rocksdict.Rdict(folder, rocksdict.Options(raw_mode=True))

    def look_up_many(ids: np.ndarray) -> np.ndarray:
        keys = ids.astype(">i8").tobytes()
        found = database[[keys[i : i + 8] for i in range(0, len(keys), 8)]]
        assert len(found[0]) == row_bytes
        return np.frombuffer(b"".join(found), np.float32).reshape(-1, DIM)

    return look_up_many


def make_store(name: str, path: Path, rows: int) -> None:
    """Copy the table into a key-value store."""
    folder = str(path.parent / name)
    source = np.load(path / "weight.npy", mmap_mode="r")
    step = 1 << 16
    if name == "LMDB":
        import lmdb

        with lmdb.open(folder, map_size=64 << 30, sync=False, writemap=True) as environment:
            for first in range(0, rows, step):
                block = source[first : first + step]
                pairs = list(_pairs(first, block))
                with environment.begin(write=True) as transaction:
                    transaction.cursor().putmulti(pairs, append=True)
            environment.sync(True)
        return
    import rocksdict

    database = rocksdict.Rdict(folder, rocksdict.Options(raw_mode=True))
    for first in range(0, rows, step):
        block = source[first : first + step]
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, row in _pairs(first, block):
            batch.put(key, row)
        database.write(batch)
    database.flush()
    database.close()


def _pairs(first: int, block: np.ndarray) -> Iterator[tuple[bytes, bytes]]:
    keys = np.arange(first, first + len(block)).astype(">i8").tobytes()
    for i, row in enumerate(block):
        yield keys[8 * i : 8 * i + 8], row.tobytes()


def trainer(name: str, optimizer: str, path: Path, rows: int) -> tuple[Step, Callable[[], None]]:
    """Return what trains one batch, and what must be called at the end."""
    upstream = np.full((BATCH, DIM), 1e-3, np.float32)
    if name == "torch":
        return _torch_trainer(optimizer, path, rows, upstream), lambda: None
    emb = mm.Embedding.from_table(mm.Table.open(path, "r+"), sparse=True)
    rule = getattr(mm.optim, optimizer)(emb.parameters(), lr=0.01)
    given = mm.tensor(upstream)

    def step(ids: np.ndarray) -> Any:
        rule.zero_grad()
        out = emb(ids)
        out.backward(given)
        rule.step()
        return out.detach().numpy()

    return step, lambda: emb.table.close(commit=False)


def _torch_trainer(optimizer: str, path: Path, rows: int, upstream: np.ndarray) -> Step:
    import torch

    def mapped(file: str) -> Any:
        array = _map(path / file, rows, "r+")
        array.base.madvise(mmap.MADV_RANDOM)
        return torch.from_numpy(array)

    emb = torch.nn.Embedding.from_pretrained(mapped("weight.npy"), freeze=False, sparse=True)
    # Made over something small: an optimizer fills a state as large as the table in memory.
    rule = getattr(torch.optim, optimizer)([torch.nn.Parameter(torch.zeros(1, DIM))], lr=0.01)
    rule.param_groups[0]["params"] = [emb.weight]
    rule.state.clear()
    if optimizer == "Adagrad":
        rule.state[emb.weight] = {
            "step": torch.tensor(0.0), "sum": mapped("weight.adagrad.sum.npy"),
        }  # fmt: skip
    elif optimizer == "SparseAdam":
        rule.state[emb.weight] = {
            "step": 0,
            "exp_avg": mapped("weight.sparse_adam.exp_avg.npy"),
            "exp_avg_sq": mapped("weight.sparse_adam.exp_avg_sq.npy"),
        }
    given = torch.from_numpy(upstream)

    def step(ids: np.ndarray) -> Any:
        rule.zero_grad()
        out = emb(torch.from_numpy(ids))
        out.backward(given)
        rule.step()
        return out.detach().numpy()

    return step
