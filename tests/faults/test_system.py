"""kill -9 and failures at system calls below Python, by strace: those inside the C library too."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from . import calls, places

TRAINER = """
import sys, warnings
from mmembed.storage import Table
from tests.faults import calls, replay
table = Table.open(sys.argv[1], "r+")
start = table.step
replay.train(table, 2, start, start + calls.STEPS, lambda step: print(step, flush=True))
table.close(commit=False)
print("end", flush=True)
"""


def trained_under(path, call: str, fault: str, at: int) -> list[str]:
    """Train with a fault at the n-th call of a kind, in any thread; what the trainer said."""
    command = [
        *("strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-P", path / "undo"),
        *("-P", path / "super", "-P", path / "weight.npy"),
        *("-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={at}"),
        *(sys.executable, "-c", TRAINER, path),
    ]
    done = subprocess.run([str(a) for a in command], capture_output=True, text=True)
    assert done.returncode in (0, 1, -9, 137), done.stderr
    assert "Segmentation" not in done.stderr
    return done.stdout.split()


@pytest.mark.long
@pytest.mark.parametrize("fault", ["signal=SIGKILL", "error=EIO", "error=ENOSPC"])
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "openat"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fault_at_any_call_of_the_kernel_leaves_a_commit(quick_path, call, fault):
    places.need("strace")
    template = quick_path.with_name("template")
    model = calls.hot_table(template, "power")
    for at in range(1, 200):
        shutil.rmtree(quick_path, ignore_errors=True)
        shutil.copytree(template, quick_path)
        said = trained_under(quick_path, call, fault, at)
        acknowledged = [int(step) for step in said if step != "end"]
        calls.check(quick_path, model, 2, acknowledged)
        if said and said[-1] == "end":
            assert at > 1, f"no {call} was reached"
            return
    raise AssertionError("the calls never end")
