"""A process whose thread pool was used may fork, and its child may use the kernels."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, sys
import numpy as np
from mmembed import kernels

kernels.set_backend(sys.argv[1])
kernels.set_num_threads(2)
table = np.arange(40_000.0).reshape(2_000, 20)
ids = np.arange(20_000) % 2_000
out = np.empty((20_000, 20))
assert kernels.gather(table, ids, out) == -1
child = os.fork()
if child == 0:
    again = np.empty_like(out)
    ok = kernels.gather(table, ids, again) == -1 and (again == out).all()
    os._exit(0 if ok and kernels.get_num_threads() == 1 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or kernels.get_num_threads() != 2)
"""


def test_a_forked_child_gathers_with_one_thread_and_its_parent_goes_on(body_name):
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT, body_name]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr


FRESH = """
import os, sys
from mmembed import kernels

child = os.fork()
if child == 0:
    os._exit(0 if kernels.get_num_threads() == len(os.sched_getaffinity(0)) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_of_a_process_that_used_no_pool_keeps_its_threads():
    done = subprocess.run([sys.executable, "-c", FRESH], timeout=120, check=False)

    assert done.returncode == 0
