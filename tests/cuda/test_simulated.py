"""Every kernel in numba's simulator of a GPU, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def simulate(*arguments):
    """Run the tests of `simulated/` as the default run does; returns what pytest said."""
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    root = HERE.parent.parent
    return subprocess.run(
        [*call, HERE / "simulated"], env=environment, cwd=root, capture_output=True, text=True
    )


def test_kernels_keep_their_contract_in_the_simulator():
    done = simulate("-m", "not long")

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.long
def test_kernels_keep_their_contract_in_the_simulator_on_more_cases():
    done = simulate("-m", "long")

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
