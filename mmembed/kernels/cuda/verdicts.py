"""Whether the ids of a batch are within the table, known to kernels before it is to the host.

Must not know what is done with the rows.
"""

from __future__ import annotations

import numpy as np

from . import copies
from .memory import DeviceArray, to_device
from .shapes import index_of


class Verdict:
    """Ids that are being checked on the GPU.

    Attributes
    ----------
    bad : (1,) int64 on the GPU: the position of the first bad id, or `copies.NONE`.
    """

    def __init__(self, ids: DeviceArray, rows: int) -> None:
        self.bad = to_device(np.array([copies.NONE], np.int64))
        if ids.size:
            kernel = copies.check_ids(index_of(ids))
            kernel.launch(-(-ids.size // 32), ids, self.bad, ids.size, rows)

    def read(self) -> int:
        """Return the position of the first bad id, or -1; waits for the GPU."""
        bad = int(self.bad.numpy()[0])
        return -1 if bad == copies.NONE else bad
