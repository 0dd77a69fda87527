"""What a kernel becomes for a GPU that is not there: PTX by numba-cuda, SASS by ptxas.

Needs numba-cuda, NVVM and NVRTC, and the programs ptxas and cuobjdump, all of them on PyPI: the
extra `cuda-code`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import subprocess
import types
from pathlib import Path

PACKAGES = "pip install -e '.[cuda-code]'"


def programs():
    """Return the directory of ptxas, or None if something of the tool chain is missing."""
    if any(importlib.util.find_spec(name) is None for name in ("numba_cuda", "nvidia")):
        return None
    for root in importlib.util.find_spec("nvidia").submodule_search_locations:
        folder = Path(root, "cu13", "bin")
        if all(os.access(folder / name, os.X_OK) for name in ("ptxas", "cuobjdump")):
            return folder
    return None


@dataclasses.dataclass
class Code:
    """What the compilers say of a kernel."""

    ptx: str
    instructions: list[str]
    registers: int
    spilled: int
    stack: int

    def count(self, pattern):
        """Return how many instructions a regular expression is found in."""
        return sum(bool(re.search(pattern, text)) for text in self.instructions)


def ptx_of(kernel, cc):
    """Return the PTX of a Kernel for a compute capability (major, minor)."""
    from numba import cuda
    from numba.cuda import dispatcher

    from mmembed.kernels.cuda.running import signature

    # Functions that a kernel calls are compiled for "the current device"; there is none.
    before = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=cc)
    try:
        kinds = signature(kernel.kinds)
        return cuda.compile_ptx(kernel.body, kinds, cc=cc, launch_bounds=kernel.bounds)[0]
    finally:
        dispatcher.get_current_device = before


def compiled(kernel, cc, folder):
    """Return the Code of a Kernel; `folder` is for files."""
    ptx = ptx_of(kernel, cc)
    source, binary = folder / "kernel.ptx", folder / "kernel.cubin"
    source.write_text(ptx)
    call = [programs() / "ptxas", f"-arch=sm_{cc[0]}{cc[1]}", "-v", source, "-o", binary]
    said = subprocess.run(call, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    dump = [programs() / "cuobjdump", "--dump-sass", binary]
    sass = subprocess.run(dump, capture_output=True, text=True, check=True).stdout

    def number(pattern):
        return int(re.search(pattern, said.stderr).group(1))

    return Code(
        ptx,
        re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.*?);", sass, re.M),
        number(r"Used (\d+) registers"),
        number(r"(\d+) bytes spill stores"),
        number(r"(\d+) bytes stack frame"),
    )


def loads_in_flight(instructions):
    """Return, for each stretch without a branch, how many wide loads are under way at most.

    A load is under way until the first use of one of the registers that it fills.
    """

    def registers(operands):
        return {int(found) for text in operands for found in re.findall(r"\bR(\d+)\b", text)}

    peaks, pending = [0], []
    for text in instructions:
        name, _, rest = re.sub(r"^@!?U?P\w+\s+", "", text).partition(" ")
        operands = rest.split(",")
        if name.startswith("LDG") and "128" in name:
            first = min(registers(operands[:1]))
            pending.append(set(range(first, first + 4)))
            peaks[-1] = max(peaks[-1], len(pending))
        else:
            stores = name.startswith(("ST", "RED"))
            used = registers(operands if stores else operands[1:])
            pending = [filled for filled in pending if not filled & used]
        if name in ("BRA", "EXIT", "RET"):
            peaks.append(0)
            pending = []
    return peaks
