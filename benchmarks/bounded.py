"""One contestant of a benchmark in a process of its own, its memory bounded.

Must not know what contestants do. A script calls `run`, which starts it anew with `--job`, and when
it is started so, `enter` as soon as its libraries are loaded and its ids are drawn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import memory_group

Job = dict[str, Any]


def run(script: str, job: Job, limit: int, seconds: float = 900) -> dict[str, Any]:
    """Run `script` with a job in `limit` bytes of memory; returns what it printed last, or failed.

    Parameters
    ----------
    seconds : after which it is ended.
    """
    with memory_group.bounded(limit) as procs:
        command = [sys.executable, script, "--job", json.dumps({**job, "procs": str(procs)})]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {seconds:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        return {"failed": lines[-1]}
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def enter(job: Job) -> None:
    """Put this process into the group of its job."""
    if job["procs"]:
        Path(job["procs"]).write_text(str(os.getpid()))


def unavailable() -> str | None:
    """Return why no process can be bounded here; None if one can."""
    try:
        with memory_group.bounded(1 << 30):
            return None
    except memory_group.UnavailableError as error:
        return str(error)


def kept(file: Path, runs: list[dict[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return the runs of a result file that were not made again, and `runs` behind them."""
    before = json.loads(file.read_text())["runs"] if file.exists() else []
    again = [tuple(run[key] for key in keys) for run in runs]
    return [run for run in before if tuple(run[key] for key in keys) not in again] + runs
