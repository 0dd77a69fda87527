"""What the CUDA path needs of the machine, and what it says where that is missing.

Importing this imports neither numba nor CUDA; asking for the runtime does.

Must not know kernels or arrays.
"""

from __future__ import annotations

import functools
from typing import Any

from ...errors import CudaUnavailableError

INSTALL = "pip install 'mmembed[cuda]'"


@functools.cache
def runtime() -> Any:
    """Return the module that allocates, copies and launches, once it is known to work.

    Raises
    ------
    CudaUnavailableError  there is no GPU, no driver, or no numba-cuda; says which, and what to do.
    """
    reason = missing()
    if reason is not None:
        raise CudaUnavailableError(reason)
    from . import running

    return running


def missing() -> str | None:
    """Return what keeps device="cuda" from working, with the remedy; None if nothing does."""
    from numba import config

    if config.ENABLE_CUDASIM:
        return None
    try:
        from numba import cuda
    except ImportError as error:
        return f"device='cuda' needs numba-cuda ({error}); install it with: {INSTALL}"
    if "numba_cuda" not in (cuda.__file__ or ""):
        return f"device='cuda' needs the package numba-cuda, which is missing: {INSTALL}"
    try:
        devices = len(cuda.gpus.lst)
    except Exception as error:  # whatever the driver says
        said = [line.strip() for line in str(error).splitlines() if len(line.strip()) > 1]
        found = next((line for line in said if not line.endswith(":")), type(error).__name__)
        return (
            f"device='cuda' needs an NVIDIA GPU and its driver, and there is none here ({found}) "
            f"Install the driver, then: {INSTALL}"
        )
    if devices == 0:
        return "device='cuda' needs an NVIDIA GPU, and the driver shows none to this process"
    return None
