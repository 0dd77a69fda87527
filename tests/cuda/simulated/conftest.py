"""These tests run in a process of their own, whose threads play a GPU: see ../test_simulated.py."""

from __future__ import annotations

import os
import sys

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    sys.setswitchinterval(1e-4)  # threads that wait for each other take turns sooner
else:
    collect_ignore_glob = ["test_*.py"]
