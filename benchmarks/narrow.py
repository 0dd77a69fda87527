"""Rows of 16 and of 8 bits: lookups, bags and steps against our own float32, torch and FBGEMM.

    python benchmarks/narrow.py            # a minute and a half on two cores, 3 GB of memory

Tables are in memory, another batch in every call, warm. Everybody has the same number of threads
(FBGEMM computes on one, see peers.py), and the answers are compared before anything is timed. What
is compared with is mmembed on the same table in float32; outputs are float32 but where it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import contest
import limits
import numpy as np
import peers
import script
import torch
from batches import draw
from peers import same

import mmembed as mm
from mmembed import functional as F
from mmembed.narrow import as_dtype

DIM = 64
BYTES = {"float16": 2 * DIM, "bfloat16": 2 * DIM, "int8": DIM + 8}
Lookup = Callable[[Any], Any]


class Tables:
    """One table in float32, and in one of the other formats, ours and torch's."""

    def __init__(self, rows: int, kind: str) -> None:
        self.kind = kind
        self.wide = limits.aligned((rows, DIM))
        self.wide[...] = np.random.default_rng(0).standard_normal((rows, DIM), dtype=np.float32)
        self.weight = mm.from_numpy(self.wide)
        self.small: Any
        self.theirs: torch.Tensor
        if kind == "int8":
            self.small = mm.Table.from_array(self.wide).quantize()
            self.theirs = torch.from_numpy(self.small.column().copy())
            return
        narrow = np.empty((rows, DIM), as_dtype(kind))
        narrow[...] = self.wide
        self.small = mm.from_numpy(narrow)
        self.theirs = torch.from_numpy(narrow.view(np.int16)).view(getattr(torch, kind))

    def gather(self, ids: Any) -> mm.Tensor:
        """Return rows as float32."""
        if self.kind == "int8":
            return F.quantized_embedding(ids, self.small)
        return F.embedding(ids, self.small, output_dtype="float32")

    def their_gather(self, ids: torch.Tensor) -> torch.Tensor:
        """Return torch's; of bytes, bags of one row are what it has."""
        if self.kind == "int8":
            return self.their_bags(ids, torch.arange(ids.numel() + 1))
        return torch.nn.functional.embedding(ids, self.theirs).float()

    def bags(self, ids: Any, starts: Any, output_dtype: str | None) -> mm.Tensor:
        """Return sums of bags."""
        kept = {"mode": "sum", "include_last_offset": True}
        if self.kind == "int8":
            return F.quantized_embedding_bag(ids, self.small, starts, **kept)
        return F.embedding_bag(ids, self.small, starts, output_dtype=output_dtype, **kept)

    def their_bags(self, ids: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Return torch's sums, in its table's dtype; of bytes, in float32."""
        if self.kind != "int8":
            return peers.torch_bag(ids, self.theirs, starts)
        return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
            self.theirs, ids, starts, False, 0, False, None, None, True
        )


def gather(kind: str, rows: int, n: int, seconds: float) -> contest.Contest:
    """Rows as float32, fresh."""
    tables, batches = Tables(rows, kind), [draw(rows, "uniform", k)((n,)) for k in range(9)]
    ours, theirs = contest.Turns(batches), contest.Turns(map(torch.from_numpy, batches))
    same(tables.gather(batches[0]), tables.their_gather(torch.from_numpy(batches[0])))
    return contest.run(
        f"gather of {n} rows of {kind}, {rows} rows, dim {DIM}",
        {
            "float32": lambda: F.embedding(ours(), tables.weight),
            "mmembed": lambda: tables.gather(ours()),
            "torch": lambda: tables.their_gather(theirs()),
        },
        "float32",
        seconds,
        about={"question": "narrow gather", "dim": DIM, "rows": rows, "kind": kind, "ids": n},
    )


def bags(kind: str, skew: str, rows: int, count: int, seconds: float) -> contest.Contest:
    """Sums of bags of 16 rows, in the dtype that torch gives; of FBGEMM in float32."""
    tables, ids_of = Tables(rows, kind), draw(rows, skew)
    batches = [ids_of((count * 16,)) for _ in range(33)]
    ours, theirs = contest.Turns(batches), contest.Turns(map(torch.from_numpy, batches))
    starts = np.arange(0, count * 16 + 1, 16)
    their_starts = torch.from_numpy(starts)
    kept = {"mode": "sum", "include_last_offset": True}
    contestants: dict[str, Callable[[], object]] = {
        "float32": lambda: F.embedding_bag(ours(), tables.weight, starts, **kept),
        "mmembed": lambda: tables.bags(ours(), starts, None),
        "torch": lambda: tables.their_bags(theirs(), their_starts),
    }
    answer = tables.bags(batches[0], starts, "float32")
    first = torch.from_numpy(batches[0])
    same(
        answer, tables.their_bags(first, their_starts).float(), 0.1 if kind == "bfloat16" else 0.02
    )
    if peers.FBGEMM and kind != "bfloat16":
        fbgemm = peers.fbgemm_serving(tables.wide, kind)
        turns = contest.Turns(torch.from_numpy(ids.astype(np.int32)) for ids in batches)
        small_starts = their_starts.int()
        same(answer, fbgemm(first.int(), small_starts), 0.2)
        contestants["fbgemm"] = lambda: fbgemm(turns(), small_starts)
    about = {"question": "narrow bags", "dim": DIM, "rows": rows, "kind": kind, "skew": skew}
    title = f"bags, sum, {count} x 16 rows of {kind}, {rows} rows, dim {DIM}, {skew}"
    return contest.run(title, contestants, "float32", seconds, about={**about, "ids": count * 16})


def step(kind: str, rows: int, count: int, seconds: float) -> contest.Contest:
    """Lookup, backward and a step of Adagrad with sparse gradients."""
    ids_of = draw(rows, "uniform")
    batches = [ids_of((count * 16,)) for _ in range(9)]
    upstream = np.random.default_rng(1).standard_normal((count * 16, DIM), dtype=np.float32)
    works = {
        "float32": _ours("float32", rows, upstream),
        "mmembed": _ours(kind, rows, upstream),
        "at random": _ours(kind, rows, upstream, stochastic_rounding=True),
        "torch": _torchs(kind, rows, upstream),
    }
    answers = {name: work(batches[0]) for name, work in works.items()}
    for name in ("mmembed", "at random", "torch"):
        np.testing.assert_allclose(answers[name], answers["float32"], rtol=0.03, atol=0.03)
    turns = {name: contest.Turns(batches) for name in works}

    def timed(name: str) -> Callable[[], object]:
        return lambda: works[name](turns[name]())

    return contest.run(
        f"sparse step of Adagrad, {count * 16} ids, {rows} rows of {kind}, dim {DIM}",
        {name: timed(name) for name in works},
        "float32",
        seconds,
        about={"question": "narrow step", "dim": DIM, "rows": rows, "kind": kind},
    )


def _ours(kind: str, rows: int, upstream: Any, **options: bool) -> Lookup:
    module = mm.nn.Embedding(rows, DIM, sparse=True, dtype=kind, init="ones")
    rule = mm.optim.Adagrad([module.weight], lr=0.1, eps=1e-3, **options)
    gradient = mm.tensor(upstream).to(as_dtype(kind))

    def work(ids: Any) -> Any:
        module.zero_grad()
        module(ids).backward(gradient)
        rule.step()
        return module.weight.array[ids[:50]].astype(np.float32)

    return work


def _torchs(kind: str, rows: int, upstream: Any) -> Lookup:
    dtype = getattr(torch, kind)
    weight = torch.ones(rows, DIM, dtype=dtype)
    module = torch.nn.Embedding(rows, DIM, sparse=True, _weight=weight)
    rule = torch.optim.Adagrad(module.parameters(), lr=0.1, eps=1e-3)
    gradient = torch.from_numpy(upstream).to(dtype)

    def work(ids: Any) -> Any:
        module.zero_grad()
        module(torch.from_numpy(ids)).backward(gradient)
        rule.step()
        return module.weight.detach()[torch.from_numpy(ids[:50])].float().numpy()

    return work


def contests(size: float, seconds: float, quick: bool = False) -> Iterator[contest.Contest]:
    """Yield all of them; `size` scales tables and batches, 1 being what is reported."""
    rows, n = max(50, round(2_000_000 * size)), max(50, round(262_144 * size))
    count = max(4, round(4096 * size))
    for kind in ("float16", "int8") if quick else BYTES:
        yield gather(kind, rows, n, seconds)
        for skew in ("uniform",) if quick else ("uniform", "zipf"):
            yield bags(kind, skew, rows, count, seconds)
    for kind in ("bfloat16",) if quick else ("float16", "bfloat16"):
        yield step(kind, rows, count, seconds)


if __name__ == "__main__":
    script.main(__doc__, "narrow", contests, 4.0, *peers.PACKAGES)
