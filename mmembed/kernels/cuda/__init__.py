"""Kernels on a GPU, in numba.cuda: the contract of `mmembed.kernels` over arrays on the device.

`body` has the functions of the contract, with the same names and arguments; arrays are
`memory.DeviceArray`s. Kernels are plain functions over the primitives of `target`, which are
instructions of the GPU (`primitives`, the one file of intrinsics) or their likes in numba's
simulator (`simulated`), so that every kernel is tested where there is no GPU.

- Rows are float32, float64, float16 or bfloat16; arithmetic is float32, or float64 of float64.
- Sums are in the order of the batch and products are rounded before they are added: results have
  the bits of the other bodies, and the same on every run. Norms, and the sums of squares of
  row-wise rules, are taken in float64, as there; no other kernel of float32 rows uses float64.
- A segment or a bag is summed by one team of at most 32 threads, however long it is.

Importing this package imports neither numba nor CUDA. Must not know files, tables or the tape.
"""

from .memory import DeviceArray, as_device, empty, to_device
from .requirements import missing

__all__ = ["DeviceArray", "as_device", "empty", "missing", "to_device"]
