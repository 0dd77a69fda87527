"""The kernels for GPUs on a GPU: answers, speed, and what the goals say of it.

    python benchmarks/gpu.py                                 # less than 9 minutes, 20 GB of the GPU
    NUMBA_ENABLE_CUDASIM=1 python benchmarks/gpu.py --tiny   # in the simulator: times mean nothing

Writes results/gpu.json and results/gpu.md: versions and attributes, what registering a mapped file
says, copies on the device and over the bus, each kernel's answers beside the CPU's bits and
float64, and the table of goals. torch is a peer where it can use the GPU. What is not reached in
--minutes is left out, and named.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_answers
import gpu_times
import machine

from mmembed.kernels.cuda import missing

PACKAGES = ("numba", "numba-cuda", "cuda-bindings", "torch", "cupy", "llvmlite")


def version(name: str) -> str | None:
    """Return the version of a package, None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, Any]:
    """Return what the libraries, the driver and the device say of themselves."""
    found = machine.describe()
    found.update({name: version(name) for name in PACKAGES})
    if gpu_times.running.simulated:
        return {**found, "device": "numba's simulator"}
    from cuda.bindings import driver
    from numba import cuda

    device = cuda.get_current_device()
    attribute = driver.CUdevice_attribute

    def asked(name: str) -> int | None:
        value = getattr(attribute, f"CU_DEVICE_ATTRIBUTE_{name}", None)
        return None if value is None else int(driver.cuDeviceGetAttribute(value, device.id)[1])

    names = (
        "MULTIPROCESSOR_COUNT", "L2_CACHE_SIZE", "PAGEABLE_MEMORY_ACCESS",
        "HOST_REGISTER_SUPPORTED", "READ_ONLY_HOST_REGISTER_SUPPORTED", "MEMORY_CLOCK_RATE",
    )  # fmt: skip
    free, total = cuda.current_context().get_memory_info()
    name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
    return {
        **found,
        "device": name,
        "compute capability": list(device.compute_capability),
        "driver": int(driver.cuDriverGetVersion()[1]),
        "memory": int(total),
        "free": int(free),
        **{key.lower(): asked(key) for key in names},
    }


def register_probe() -> dict[str, str]:
    """Return what the driver says to pinning a writable, and a read-only, mapped file."""
    if gpu_times.running.simulated:
        return {}
    from cuda.bindings import driver

    said = {}
    with tempfile.TemporaryFile(dir=".") as file:
        file.truncate(1 << 20)
        with mmap.mmap(file.fileno(), 1 << 20) as memory:
            import numpy as np

            address = np.frombuffer(memory, np.uint8).ctypes.data
            for name, flags in (("writable", 0), ("read-only", 8)):
                (status,) = driver.cuMemHostRegister(address, 1 << 20, flags)
                said[name] = str(status)
                if status == driver.CUresult.CUDA_SUCCESS:
                    driver.cuMemHostUnregister(address)
    return said


def sanitized(seconds: float) -> dict[str, str]:
    """Return what compute-sanitizer says of the kernels at a tiny size, where it is installed."""
    program = shutil.which("compute-sanitizer")
    if program is None or gpu_times.running.simulated:
        return {}
    said = {}
    for tool in ("memcheck", "racecheck"):
        call = [program, "--tool", tool, "--error-exitcode", "9"]
        call += [sys.executable, __file__, "--answers"]
        try:
            done = subprocess.run(call, capture_output=True, text=True, timeout=seconds / 2)
        except subprocess.TimeoutExpired:
            said[tool] = "not done in time"
            continue
        text = (done.stdout + done.stderr).strip().splitlines()
        said[tool] = "clean" if done.returncode == 0 else "\n".join(text[-20:])
    return said


def answers(tiny: bool) -> list[dict[str, Any]]:
    """Return the lines of `gpu_answers.compare`."""
    if tiny:
        return list(gpu_answers.compare(20, 30, (8,)))
    return list(gpu_answers.compare(3_000, 20_000, (7, 64, 128, 516)))


def judged(one: gpu_times.Timed, copy: float) -> dict[str, Any]:
    """Return a line of the table of goals."""
    rate = one.bytes / one.seconds
    against = one.torch / one.seconds if one.torch else None
    goals = [(rate / copy, one.of_copy), (against, one.of_torch)]
    asked = [(got, goal) for got, goal in goals if goal is not None]
    failed = any(got is not None and got < goal for got, goal in asked)
    open_ = not asked or any(got is None for got, _ in asked)
    met = None if gpu_times.running.simulated else False if failed else None if open_ else True
    return {
        "question": one.question,
        "milliseconds": one.seconds * 1e3,
        "GB/s": rate / 1e9,
        "of copy": rate / copy,
        "goal of copy": one.of_copy,
        "torch milliseconds": one.torch * 1e3 if one.torch else None,
        "times torch": against,
        "goal times torch": one.of_torch,
        "met": met,
    }


def markdown(found: dict[str, Any]) -> str:
    """Return the results as a page."""

    def number(value: Any) -> str:
        return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)

    wrong = [one for one in found["answers"] if not one["same bits"]]
    bus = ", ".join(f"{name} {number(rate)} GB/s" for name, rate in found["bus GB/s"].items())
    lines = [
        f"# {found['machine']['device']}",
        "",
        f"- copy on the device: {number(found['copy GB/s'])} GB/s, read and written; bus: {bus}",
        f"- one launch costs the host {number(found['launch microseconds'])} µs",
        f"- {len(found['answers'])} answers, {len(wrong)} with other bits than the CPU's",
        "",
        "| question | ms | of copy | goal | times torch | goal | met |",
        "|---|---|---|---|---|---|---|",
    ]
    keys = ("question", "milliseconds", "of copy", "goal of copy", "times torch",
            "goal times torch", "met")  # fmt: skip
    lines += ["| " + " | ".join(number(line[k]) for k in keys) + " |" for line in found["goals"]]
    lines += [f"\nNot reached in time: {', '.join(found['left out'])}."] * bool(found["left out"])
    if gpu_times.running.simulated:
        lines.insert(1, "\nTimes of the simulator mean nothing: no goal is judged.")
    lines += [f"\n- other bits: {one}" for one in wrong]
    return "\n".join(lines) + "\n"


def measured(size: gpu_times.Size, until: float, left_out: list[str]) -> Iterator[gpu_times.Timed]:
    """Yield what is timed, while there is time."""
    for part in (gpu_times.gathers, gpu_times.bag_sums, gpu_times.steps, gpu_times.others):
        if time.monotonic() > until:
            left_out.append(part.__name__)
            continue
        for one in part(size):
            print(f"{one.question}: {one.seconds * 1e3:.4g} ms", flush=True)
            yield one


def run(tiny: bool, minutes: float) -> dict[str, Any]:
    """Return everything that is to be known."""
    begin = time.monotonic()
    size = gpu_times.TINY if tiny else gpu_times.Size()
    left_out: list[str] = []
    found: dict[str, Any] = {"machine": versions(), "register": register_probe()}
    print(json.dumps(found, indent=1), flush=True)
    found["answers"] = answers(tiny)
    wrong = [one for one in found["answers"] if not one["same bits"]]
    print(f"{len(found['answers'])} answers, with other bits than the CPU's: {wrong}", flush=True)
    copy = gpu_times.copy_rate(size)
    found["copy GB/s"] = copy / 1e9
    rates = gpu_times.bus_rates(size)
    found["bus GB/s"] = {name: rate / 1e9 for name, rate in rates.items()}
    found["launch microseconds"] = gpu_times.host_cost(size) * 1e6
    until = begin + minutes * 60 - 90
    found["goals"] = [judged(one, copy) for one in measured(size, until, left_out)]
    rest = begin + minutes * 60 - 20 - time.monotonic()
    found["sanitizer"] = sanitized(min(rest, 120)) if rest > 30 and not tiny else {}
    found["left out"] = left_out
    found["seconds"] = time.monotonic() - begin
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="sizes for the simulator")
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--answers", action="store_true", help="compare tiny answers, and no more")
    parser.add_argument("--folder", type=Path, default=None, help="for results")
    arguments = parser.parse_args()
    if reason := missing():
        sys.exit(reason)
    if arguments.answers:
        sys.exit(not all(one["same bits"] for one in answers(True)))
    found = run(arguments.tiny, arguments.minutes)
    folder = arguments.folder or machine.folder(arguments.tiny)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "gpu.md").write_text(markdown(found))
    print(markdown(found))
    if not all(one["same bits"] for one in found["answers"]):
        sys.exit("some answers are not those of the CPU")


if __name__ == "__main__":
    os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")
    main()
