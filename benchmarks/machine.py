"""What a result file says of the machine and the libraries it was measured on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def describe(*packages: str) -> dict[str, Any]:
    """Return the processor, the system, and versions of Python, NumPy, mmembed and `packages`."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = models[0].split(":", 1)[1].strip() if models else model
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("numpy", "mmembed", *packages)},
    }


def folder(quick: bool) -> Path:
    """Return where results go; those of a quick look are not for keeping."""
    return RESULTS / "quick" if quick else RESULTS


def save(name: str, results: dict[str, Any], quick: bool = False) -> Path:
    """Write NAME.json among the results and return its path."""
    folder(quick).mkdir(exist_ok=True, parents=True)
    path = folder(quick) / f"{name}.json"
    path.write_text(json.dumps(_rounded(results), indent=1) + "\n")
    return path


def _rounded(value: Any) -> Any:
    """Return the same with floats of four digits, which is more than is measured."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
