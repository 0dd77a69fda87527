"""Which devices modules can be on, and what is said of one that they cannot.

Must not know modules.
"""

from __future__ import annotations

from .errors import CudaUnavailableError


def check_device(device: str | None) -> None:
    """Return if modules can be on a device: "cpu", or None.

    Raises
    ------
    CudaUnavailableError  it is a GPU: says what is missing, and the command that installs it.
    ValueError            it is something else.
    """
    if device in (None, "cpu", "cpu:0"):
        return
    if isinstance(device, str) and device.split(":")[0] == "cuda":
        from .kernels.cuda import missing  # nothing of CUDA is loaded for a CPU

        reason = missing()
        if reason is None:
            reason = (
                f"device={device!r}: modules are on the CPU; there are kernels for arrays on the "
                "GPU in mmembed.kernels.cuda"
            )
        raise CudaUnavailableError(reason)
    raise ValueError(f"device must be 'cpu', got {device!r}")
