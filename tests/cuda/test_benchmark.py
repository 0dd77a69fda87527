"""The benchmark for GPUs runs, tiny and in the simulator, so that it does not rot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ml_dtypes")
SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "gpu.py"


def test_the_benchmark_answers_and_judges_nothing_in_the_simulator(tmp_path):
    call = [sys.executable, SCRIPT, "--tiny", "--folder", tmp_path]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}

    done = subprocess.run(call, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["machine"]["device"] == "numba's simulator"
    assert len(found["answers"]) == 40
    assert all(one["same bits"] for one in found["answers"])
    assert all(one["error"] < (1e-2 if "16" in one["dtype"] else 1e-6) for one in found["answers"])
    assert len(found["goals"]) == 14
    assert {line["met"] for line in found["goals"]} == {None}
    assert found["left out"] == []
    assert "mean nothing" in (tmp_path / "gpu.md").read_text()


def test_without_a_gpu_the_benchmark_says_what_is_missing():
    environment = {key: value for key, value in os.environ.items() if "CUDASIM" not in key}
    environment["CUDA_VISIBLE_DEVICES"] = ""

    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True)

    assert done.returncode == 1
    assert "device='cuda' needs" in done.stderr
