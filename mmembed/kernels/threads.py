"""How many threads a kernel call may use.

Must not know any kernel. GNU OpenMP's pool does not survive fork(): a child of a process that has
used the pool gets one thread, for good.
"""

import contextlib
import operator
import os
from collections.abc import Iterator

# Below this many elements moved, waking a second thread costs more than it saves.
_PARALLEL_ELEMENTS = 1 << 17

# OpenMP ends the process if the system does not give it as many threads as it asks for.
MAX_THREADS = max(256, 2 * (os.cpu_count() or 1))

_num_threads = 0  # 0: not chosen yet
_pool_used = False
_pool_lost = False


def get_num_threads() -> int:
    """Return the number of threads that kernels use for large batches."""
    global _num_threads
    if _num_threads == 0:
        _num_threads = len(os.sched_getaffinity(0))
    return 1 if _pool_lost else _num_threads


def set_num_threads(n: int) -> None:
    """Use `n` threads for large batches; results do not depend on it.

    Raises
    ------
    TypeError   n is not an integer.
    ValueError  n is not in 1..MAX_THREADS.
    """
    global _num_threads
    n = operator.index(n)
    if not 1 <= n <= MAX_THREADS:
        raise ValueError(f"the number of threads must be in 1..{MAX_THREADS}, got {n}")
    _num_threads = n


def threads_for(elements: int) -> int:
    """Return the number of threads for a call that moves `elements` table elements."""
    global _pool_used
    if elements < _PARALLEL_ELEMENTS:
        return 1
    n = get_num_threads()
    _pool_used = _pool_used or n > 1
    return n


@contextlib.contextmanager
def short_spins() -> Iterator[None]:
    """Let GNU OpenMP, if it is loaded in the block, spin for microseconds where it waits.

    By default its threads spin for milliseconds before they sleep. On a busy machine that keeps the
    processor from the very thread that is waited for: kernels were seen to take ten times as long.
    The library reads its settings when it is loaded; what the user has set stays.
    """
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = "10000"
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def _after_fork_in_child() -> None:
    global _pool_lost
    _pool_lost = _pool_lost or _pool_used


os.register_at_fork(after_in_child=_after_fork_in_child)
