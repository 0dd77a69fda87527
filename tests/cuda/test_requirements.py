"""What is said where there is no GPU, and that nothing of CUDA is loaded before it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mmembed.errors import CudaUnavailableError, MmembedError
from mmembed.kernels.cuda import empty, missing


def python(script):
    environment = {key: value for key, value in os.environ.items() if "CUDASIM" not in key}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_mmembed_and_its_device_arrays_loads_no_cuda():
    script = (
        "import sys, mmembed, mmembed.kernels.cuda;"
        "print([m for m in sys.modules if m.split('.')[0] in ('numba', 'numba_cuda', 'cuda')])"
    )

    assert python(script) == "[]"


def test_what_is_missing_is_named_with_the_command_that_installs_it():
    reason = missing()
    if reason is None:
        pytest.skip("there is a GPU here")

    assert reason.startswith("device='cuda' needs ")
    with pytest.raises(CudaUnavailableError, match="device='cuda' needs ") as caught:
        empty((2, 3), "float32")
    assert isinstance(caught.value, MmembedError)
    assert isinstance(caught.value, RuntimeError)


def test_without_numba_cuda_the_message_names_the_extra():
    script = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'numba_cuda' not in repr(f)];"
        "import numba.cuda as c; c.__file__ = '/elsewhere/numba/cuda/__init__.py';"
        "from mmembed.kernels.cuda import missing; print(missing())"
    )

    assert "numba-cuda, which is missing: pip install 'mmembed[cuda]'" in python(script)
