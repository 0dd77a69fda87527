"""The primitives of where kernels run: the GPU, or numba's simulator of one.

Set NUMBA_ENABLE_CUDASIM=1 before Python starts for the simulator. Importing this imports numba.

Must not know kernels, tables or launches.
"""

from __future__ import annotations

from numba import config

SIMULATED = bool(config.ENABLE_CUDASIM)

if SIMULATED:
    from .simulated import (
        absolute,
        add_to,
        atomic_min,
        block_index,
        block_threads,
        blocks,
        count_bits,
        device,
        f32,
        f64,
        first_bit,
        from_below,
        from_lane,
        i64,
        lanes_where,
        lanes_with,
        load,
        mul,
        not_unrolled,
        power,
        root,
        shared_counts,
        store,
        sync_warp,
        thread_index,
    )
else:
    from .primitives import (
        absolute,
        add_to,
        atomic_min,
        block_index,
        block_threads,
        blocks,
        count_bits,
        device,
        f32,
        f64,
        first_bit,
        from_below,
        from_lane,
        i64,
        lanes_where,
        lanes_with,
        load,
        mul,
        not_unrolled,
        power,
        root,
        shared_counts,
        store,
        sync_warp,
        thread_index,
    )

__all__ = [
    "SIMULATED", "absolute", "add_to", "atomic_min", "block_index", "block_threads", "blocks",
    "count_bits", "device", "f32", "f64", "first_bit", "from_below", "from_lane", "i64",
    "lanes_where", "lanes_with", "load", "mul", "not_unrolled", "power", "root", "shared_counts",
    "store", "sync_warp", "thread_index",
]  # fmt: skip
