"""How loops are compiled by Numba, and how they are called.

A loop is compiled when it is first called with arrays of its dtypes, serial and parallel apart, and
kept in Numba's cache on disk. The compiled form is called directly: Numba's dispatcher would
compile again for strided and for read-only arrays, though one form takes them all.

Must not know any loop. The serial form is used for one thread: it starts no thread pool, so a
forked child may call it.
"""

from __future__ import annotations

import hashlib
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import types as numba_types
from numba.core.types.containers import Tuple


def _nothing() -> None:
    """Do nothing."""


def _can_cache() -> bool:
    """Return whether there is a folder for compiled code; if not, every process compiles anew."""
    try:
        numba.njit(cache=True)(_nothing)
    except RuntimeError:
        return False
    return True


# Division by zero gives what it does in NumPy. Nothing may be fused: no `fastmath`.
OPTIONS = {"nogil": True, "error_model": "numpy"}
CACHE = _can_cache()
jitted = numba.njit(**OPTIONS)  # the pieces of loops, which are compiled into them


def _digest() -> str:
    """Return a name for the sources of this body: what is in the cache is a whole of all of them.

    Numba itself looks only at the file that a loop is in.
    """
    files = sorted(Path(__file__).parent.glob("numba_*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


_SOURCES = _digest()

# Not every threading layer of Numba allows two Python threads in parallel loops at once.
_pool = threading.Lock()

_compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}


def _type_of(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        dtype: Any = numba.from_dtype(argument.dtype)
        return numba_types.Array(dtype, argument.ndim, "A" if argument.ndim > 1 else "C")
    if isinstance(argument, tuple):
        return Tuple([_type_of(element) for element in argument])
    return numba.typeof(argument)


def compiled(
    loop: Callable[..., Any], arguments: tuple[Any, ...], parallel: bool
) -> Callable[..., Any]:
    """Return `loop` compiled for arguments like these, followed by the number of threads.

    Arrays of more than one dimension may have any strides and may be read-only.
    """
    copy = types.FunctionType(
        loop.__code__, loop.__globals__, loop.__name__, loop.__defaults__, loop.__closure__
    )
    # Numba's cache tells forms apart by their names.
    form = "parallel" if parallel else "serial"
    copy.__qualname__ = f"{loop.__qualname__}_{form}_{_SOURCES}"
    copy.__module__ = loop.__module__
    # What a closure is over, such as a user's rule, has no name that outlives the process.
    cache = CACHE and loop.__closure__ is None
    dispatcher = numba.njit(parallel=parallel, cache=cache, **OPTIONS)(copy)
    signature = (*(_type_of(argument) for argument in arguments), numba_types.intp)
    dispatcher.compile(signature)
    function: Callable[..., Any] = dispatcher.get_overload(signature)
    return function


def run(loop: Callable[..., Any], dtypes: str, threads: int, *arguments: Any) -> Any:
    """Call a loop; `dtypes` are the characters of those dtypes that its arguments may vary in."""
    parallel = threads > 1
    form = _compiled.get((loop, dtypes, parallel))
    if form is None:
        form = _compiled[loop, dtypes, parallel] = compiled(loop, arguments, parallel)
    if not parallel:
        return form(*arguments, 1)
    threads = min(threads, numba.config.NUMBA_NUM_THREADS)
    with _pool:
        numba.set_num_threads(threads)
        return form(*arguments, threads)
