"""The peers at their best: torch's and FBGEMM's tables, on the same kind of memory as ours.

NumPy asks the system for huge pages and torch does not, which alone makes random rows two or three
times as slow; torch begins arrays with a cache line and NumPy does not. What a peer keeps between
calls, and what we keep, is therefore in memory from NumPy that begins with a cache line. What a
call returns, everyone allocates as for its users.

Must not know mmembed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import limits
import numpy as np
import torch

FBGEMM = importlib.util.find_spec("fbgemm_gpu") is not None
PACKAGES = ("fbgemm-gpu-cpu",) if FBGEMM else ()


def same(ours: Any, theirs: torch.Tensor, tolerance: float = 1e-4) -> None:
    """Raise AssertionError unless the answers agree."""
    found = ours if isinstance(ours, np.ndarray) else ours.numpy()
    np.testing.assert_allclose(found, theirs.detach().numpy(), rtol=tolerance, atol=tolerance)


def in_huge_pages(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy in such memory."""
    return torch.from_numpy(limits.aligned_copy(tensor.detach().numpy()))


def torch_embedding(table: Any) -> torch.nn.Embedding:
    """Return a sparse Embedding over the memory of `table`."""
    rows, dim = table.shape
    return torch.nn.Embedding(rows, dim, sparse=True, _weight=torch.from_numpy(table))


def move_state(rule: torch.optim.Optimizer) -> None:
    """Move the state of an optimizer into huge pages; it must have made a step."""
    for state in rule.state.values():
        for name, value in state.items():
            if torch.is_tensor(value) and value.ndim == 2:
                state[name] = in_huge_pages(value)


class Fbgemm:
    """A table of FBGEMM with sums of bags, whose backward updates it in the same call.

    optimizer : "EXACT_SGD", "EXACT_ROWWISE_ADAGRAD" or "EXACT_ADAGRAD".

    The wheel is built without OpenMP (none of its libraries asks for it): it computes on the thread
    that calls, whatever torch's number of threads is. `Halves` uses two.
    """

    def __init__(self, table: Any, optimizer: str = "EXACT_SGD", lr: float = 0.1) -> None:
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
            BoundsCheckMode,
            EmbeddingLocation,
        )
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        self.module = SplitTableBatchedEmbeddingBagsCodegen(
            [(*table.shape, EmbeddingLocation.HOST, ComputeDevice.CPU)],
            optimizer=getattr(EmbOptimType, optimizer),
            learning_rate=lr,
            eps=1e-10,
            bounds_check_mode=BoundsCheckMode.NONE,
        )
        self.module.weights_host.data = torch.from_numpy(limits.aligned_copy(table).reshape(-1))
        state = getattr(self.module, "momentum1_host", None)
        if state is not None:
            state.data = in_huge_pages(state.data)

    def __call__(self, ids: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Return the sums of the bags ids[starts[b]:starts[b + 1]]."""
        return self.module(ids, starts)

    def rows(self) -> Any:
        """Return the table as it is now."""
        return self.module.split_embedding_weights()[0].detach().numpy()


class Halves:
    """FBGEMM on two threads, as its users would have to do it: each has half of the rows.

    Sums of a bag come in two parts, which nobody adds here.
    """

    def __init__(self, table: Any, optimizer: str = "EXACT_SGD", lr: float = 0.1) -> None:
        self._rows, self._middle = len(table), len(table) // 2
        parts = (table[: self._middle], table[self._middle :])
        self._tables = [Fbgemm(part, optimizer, lr) for part in parts]
        self._pool = ThreadPoolExecutor(2)

    def split(self, ids: Any, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return for each half its ids of a batch, and where its part of every bag begins."""
        split = []
        for first, end in ((0, self._middle), (self._middle, self._rows)):
            mine = (ids >= first) & (ids < end)
            counts = mine.reshape(-1, length).sum(axis=1)
            starts = np.concatenate([[0], np.cumsum(counts)])
            split.append((torch.from_numpy(ids[mine] - first), torch.from_numpy(starts)))
        return split

    def step(self, split: list[tuple[torch.Tensor, torch.Tensor]], upstream: torch.Tensor) -> None:
        """Look up and update both halves at once."""
        self._at_once(lambda table, part: table(*part).backward(upstream), split)

    def sums(self, split: list[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        """Return the parts of all sums, without gradients."""
        return self._at_once(torch.no_grad()(lambda table, part: table(*part)), split)

    def rows(self) -> Any:
        """Return the table as it is now."""
        return np.concatenate([table.rows() for table in self._tables])

    def _at_once(self, work: Callable[..., Any], split: list[Any]) -> list[Any]:
        begun = [self._pool.submit(work, *each) for each in zip(self._tables, split, strict=True)]
        return [one.result() for one in begun]


def torch_bag(ids: torch.Tensor, table: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Return the sums of bags; `starts` has the end of the last one too."""
    return torch.nn.functional.embedding_bag(
        ids, table, starts, mode="sum", include_last_offset=True
    )


def fbgemm_forward(table: Any) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return FBGEMM's sums of bags without gradients."""
    return torch.no_grad()(Fbgemm(table).__call__)


def fbgemm_serving(table: Any, kind: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return FBGEMM's sums of bags, float32, of a table in "float16" or "int8".

    Of int8 it has scale and bias of a row in float16. Ids and starts are int32.
    """
    from fbgemm_gpu.split_embedding_configs import SparseType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
        BoundsCheckMode,
        EmbeddingLocation,
    )
    from fbgemm_gpu.split_table_batched_embeddings_ops_inference import (
        IntNBitTableBatchedEmbeddingBagsCodegen,
    )

    rows, dim = table.shape
    stored = {"float16": SparseType.FP16, "int8": SparseType.INT8}[kind]
    module = IntNBitTableBatchedEmbeddingBagsCodegen(
        [("table", rows, dim, stored, EmbeddingLocation.HOST)],
        device="cpu",
        output_dtype=SparseType.FP32,
        bounds_check_mode=BoundsCheckMode.NONE,
    )
    module.fill_random_weights()
    weights, _ = module.split_embedding_weights(split_scale_shifts=False)[0]
    given = torch.from_numpy(table)
    if kind == "float16":
        weights.copy_(given.half().view(torch.uint8))
    else:
        fused = torch.ops.fbgemm.FloatToFused8BitRowwiseQuantized(given)
        ends = fused[:, dim:].contiguous().view(torch.float32).half()
        weights[:, :4] = ends.view(torch.uint8)
        weights[:, 4 : 4 + dim] = fused[:, :dim]
    return torch.no_grad()(lambda ids, starts: module(ids, starts))
