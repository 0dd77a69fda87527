"""Contestants timed in turn, so that what else the machine does hits all of them alike.

Must not know what is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Times = dict[str, list[float]]


class Contest(NamedTuple):
    """One question: its title, seconds of every run by contestant, and who is compared with.

    `about` says in words for programs what was asked: the question, sizes and skew.
    """

    title: str
    times: Times
    peer: str
    about: Mapping[str, Any] = {}

    def medians(self) -> dict[str, float]:
        """Return {contestant: median seconds}."""
        return {name: statistics.median(times) for name, times in self.times.items()}

    def speeds(self, peer: str | None = None) -> dict[str, float]:
        """Return {contestant: how many times as fast as the peer, the median over rounds}."""
        theirs = self.times[peer or self.peer]
        return {
            name: statistics.median(them / us for them, us in zip(theirs, ours, strict=True))
            for name, ours in self.times.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """Return what a result file says of it: medians, best times, and all ratios of speeds."""
        return {
            "title": self.title,
            "about": dict(self.about),
            "peer": self.peer,
            "milliseconds": {name: 1e3 * value for name, value in self.medians().items()},
            "best milliseconds": {name: 1e3 * min(times) for name, times in self.times.items()},
            "speed against": {peer: self.speeds(peer) for peer in self.times},
            "rounds": len(self.times[self.peer]),
        }


def run(
    title: str,
    contestants: Mapping[str, Callable[[], object]],
    peer: str,
    seconds: float = 3.0,
    least: int = 5,
    about: Mapping[str, Any] | None = None,
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
    return Contest(title, times, peer, about or {})


class Turns:
    """Batches handed out one by one, round and round, to all contestants alike.

    One that was just used is the last to come again, so that nobody finds rows in the cache that
    the contestant before has left there.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = list(batches)
        self._next = 0

    def __call__(self) -> Any:
        batch = self._batches[self._next % len(self._batches)]
        self._next += 1
        return batch


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
