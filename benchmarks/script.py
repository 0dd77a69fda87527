"""The command line of a benchmark: options, threads, the table it prints, the file it writes.

Must not know what is measured.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator

import contest
import machine
import torch

import mmembed as mm

Contests = Callable[[float, float, bool], Iterator[contest.Contest]]


def main(said: str, name: str, contests: Contests, seconds: float, *packages: str) -> None:
    """Run `contests(size, seconds, quick)`, print them, and write results/NAME.json."""
    parser = argparse.ArgumentParser(description=said.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=seconds, help="for each question")
    parser.add_argument("--quick", action="store_true", help="fewer questions, 0.5 seconds each")
    arguments = parser.parse_args()
    mm.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", "Sparse invariant checks", UserWarning)
    done = []
    for one in contests(1.0, 0.5 if arguments.quick else arguments.seconds, arguments.quick):
        done.append(one)
        print(contest.table([one]).splitlines()[-1], flush=True)
    print(contest.table(done))
    results = {
        "machine": machine.describe("torch", *packages),
        "threads": arguments.threads,
        "quick": arguments.quick,
        "contests": [one.as_dict() for one in done],
    }
    print(f"wrote {machine.save(name, results, arguments.quick)}")
