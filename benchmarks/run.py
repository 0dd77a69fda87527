"""Run the benchmarks, and say which targets are met.

    python benchmarks/run.py                # all of them; less than 15 minutes on two cores
    python benchmarks/run.py --quick        # what the targets need, about a minute
    python benchmarks/run.py lookups steps  # some of them; the table has what was measured before
    python benchmarks/run.py --no-run       # the table and the plots of the results that there are

Every benchmark is a process of its own, so that none finds the memory or the threads of another.
Results go to benchmarks/results/, those of --quick to benchmarks/results/quick/.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import targets

HERE = Path(__file__).parent
# These know --quick.
SCRIPTS = ("limits", "lookups", "steps", "fused", "narrow", "bodies", "own_rules", "sizes")
SLOW = ("word_vectors",)
ON_REQUEST = ("out_of_core", "real_graph", "durability")  # slow, and with needs of their own
ASKED_FOR = tuple(name for name in ON_REQUEST if (HERE / f"{name}.py").exists())
NAMES = SCRIPTS + SLOW + ASKED_FOR


def measure(names: Sequence[str], threads: int, quick: bool) -> list[str]:
    """Run the scripts one after another; return the names of those that failed."""
    failed = []
    for name in names:
        begin = time.perf_counter()
        command = [sys.executable, str(HERE / f"{name}.py")]
        if name not in ASKED_FOR:
            command += ["--threads", str(threads)]
        if name in SLOW:
            command += ["--seeds", "1"]
        elif quick and name in SCRIPTS:
            command += ["--quick"]
        print(f"== {name}", flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
        print(f"== {name} took {time.perf_counter() - begin:.0f} s", flush=True)
    return failed


def load(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the contests of the files of results that are there."""
    files = [folder / f"{name}.json" for name in names]
    read = [json.loads(file.read_text()) for file in files if file.exists()]
    return [one for results in read for one in results.get("contests", ())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-run", action="store_true")
    arguments = parser.parse_args()
    everything = SCRIPTS if arguments.quick else SCRIPTS + SLOW
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    names = arguments.names or everything
    failed = [] if arguments.no_run else measure(names, arguments.threads, arguments.quick)
    folder = machine.folder(arguments.quick)
    reached = targets.judge(load(folder, everything))
    print(targets.table(reached))
    said = {"targets": [one.as_dict() for one in reached]}
    machine.save("targets", said, arguments.quick)
    plots = importlib.import_module("plots")  # matplotlib is an extra
    print("drew", *plots.draw(load(folder, everything), folder))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
