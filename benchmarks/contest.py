"""Contestants timed in turn, so that what else the machine does hits all of them alike.

Must not know what is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Times = dict[str, list[float]]


class Contest(NamedTuple):
    """One question: its title, seconds of every run by contestant, and who is compared with."""

    title: str
    times: Times
    peer: str

    def medians(self) -> dict[str, float]:
        """Return {contestant: median seconds}."""
        return {name: statistics.median(times) for name, times in self.times.items()}

    def speeds(self) -> dict[str, float]:
        """Return {contestant: how many times as fast as the peer, the median over rounds}."""
        return {
            name: statistics.median(
                theirs / ours for theirs, ours in zip(self.times[self.peer], times, strict=True)
            )
            for name, times in self.times.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """Return what a result file says of it."""
        return {
            "title": self.title,
            "peer": self.peer,
            "milliseconds": {name: 1e3 * value for name, value in self.medians().items()},
            "best milliseconds": {name: 1e3 * min(times) for name, times in self.times.items()},
            "speed": self.speeds(),
            "rounds": len(self.times[self.peer]),
        }


def run(
    title: str,
    contestants: Mapping[str, Callable[[], object]],
    peer: str,
    seconds: float = 3.0,
    least: int = 5,
) -> Contest:
    """Time every contestant in turn, for about `seconds` in all and `least` rounds at least."""
    for contestant in contestants.values():  # warm up
        contestant()
        contestant()
    times: Times = {name: [] for name in contestants}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[peer]) < least:
        for name, contestant in contestants.items():
            begin = time.perf_counter()
            contestant()
            times[name].append(time.perf_counter() - begin)
    return Contest(title, times, peer)


def table(contests: Sequence[Contest]) -> str:
    """Return a Markdown table: milliseconds, and in brackets the speed against the peer."""
    names = list(dict.fromkeys(name for contest in contests for name in contest.times))
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for contest in contests:
        medians, speeds = contest.medians(), contest.speeds()
        cells = [
            f"{1e3 * medians[name]:.3g} ms ({speeds[name]:.2f}x)" if name in medians else ""
            for name in names
        ]
        lines.append(f"| {contest.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
