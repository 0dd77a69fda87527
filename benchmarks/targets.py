"""What the CPU kernels must reach, and how far they are, from the files of results.

Must not know how anything is measured.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

DIMS_16_TO_512 = (16, 32, 64, 128, 256, 512)
COPIES = ("copy, torch", "copy, streaming")


class Target(NamedTuple):
    """A ratio of speeds: of `contestant` over the best of `peers`, in all contests that fit.

    `reach` and `stretch` are 0 where a ratio is told and nothing is asked of it.
    """

    work: str
    against: str
    reach: float
    stretch: float
    question: str
    peers: tuple[str, ...]
    where: Mapping[str, Collection[Any]] = {}
    contestant: str = "mmembed"


TARGETS = (
    Target(
        "gather, fresh output, 64 MiB of rows, dims 16–512", "torch F.embedding", 3, 6,
        "gather", ("torch",), {"dim": DIMS_16_TO_512},
    ),
    Target(
        "gather into out=, table of 1 GiB, every dim", "best of index_select(out=), np.take",
        1.15, 1.5, "gather", ("torch out=", "take out="), {}, "mmembed out=",
    ),
    Target(
        "the same, dims >= 128", "best copy of two threads", 0.85, 0.95,
        "gather", COPIES, {"dim": (128, 256, 512, 1024)}, "mmembed out=",
    ),
    Target(
        "the same, dims >= 128", "torch's copy alone", 0, 0,
        "gather", COPIES[:1], {"dim": (128, 256, 512, 1024)}, "mmembed out=",
    ),
    Target(
        "the same, dims >= 16", "bare loop over the same rows", 0, 0,
        "gather", ("limit",), {}, "mmembed out=",
    ),
    Target(
        "bags, sum, 4096 x 16 ids, dim 64", "best of torch, FBGEMM", 1.1, 1.5,
        "bags", ("torch", "fbgemm", "fbgemm, two halves"),
    ),
    Target("the same", "bare loop that reads the same rows", 0, 0, "bags", ("limit",)),
    Target("renorm of 100k distinct rows", "torch", 20, 50, "renorm", ("torch",)),
    Target("dense backward, Zipf", "torch", 1.5, 3, "dense backward", ("torch",)),
    *(
        Target(
            f"sparse step, 4096 x 16 ids, 2M x 64, {name}" + contestant.removeprefix("mmembed"),
            "torch sparse + optimizer",
            reach, stretch, "step", ("torch",), {"optimizer": (name,)}, contestant,
        )
        for contestant in ("mmembed", "mmembed, fused")
        for name, reach, stretch in (("SGD", 3, 6), ("Adagrad", 8, 15), ("SparseAdam", 8, 15))
    ),
    *(
        Target(
            f"fused step, {name}", f"FBGEMM {theirs}", reach, stretch,
            "fused step", ("fbgemm",), {"optimizer": (name,)},
        )
        for name, theirs, reach, stretch in (
            ("SGD", "EXACT_SGD", 1.0, 1.4),
            ("RowwiseAdagrad", "EXACT_ROWWISE_ADAGRAD", 1.0, 1.4),
            ("Adagrad", "EXACT_ADAGRAD", 2, 4),
        )
    ),
    Target("fused step, any", "FBGEMM, half of the rows on each of two threads", 0, 0,
        "fused step", ("fbgemm, two halves",),
    ),
    Target("fused step, any", "bare loops over the same rows", 0.6, 0.8, "fused step", ("limit",)),
    Target(
        "emb(ids), 32 ids, no gradient", "torch", 0.8, 1.2, "small batch", ("torch",),
        {"ids": (32,)},
    ),
    Target(
        "skip-gram training", "gensim at its best step size", 1.0, 2.0,
        "skip-gram", ("gensim, alpha 0.1",), {}, "mmembed, tables on disk",
    ),
    Target("Numba's kernels", "Cython's kernels", 1 / 1.3, 1, "bodies", ("cython",), {}, "numba"),
)  # fmt: skip


class Reached(NamedTuple):
    """A target and the ratios that were measured: {title of the contest: ratio}."""

    target: Target
    ratios: dict[str, float]

    @property
    def verdict(self) -> str:
        """How the worst ratio stands to the target."""
        worst, target = min(self.ratios.values(), default=0.0), self.target
        if not target.reach:
            return ""
        if not self.ratios:
            return "not measured"
        if worst < target.reach:
            return "MISSED"
        return "stretch" if worst >= target.stretch else "met"

    def as_dict(self) -> dict[str, Any]:
        """Return what a result file says of it."""
        return {**self.target._asdict(), "ratios": self.ratios, "verdict": self.verdict}


def judge(contests: Sequence[Mapping[str, Any]]) -> list[Reached]:
    """Return what the contests of result files say of every target."""
    return [Reached(target, dict(_ratios(target, contests))) for target in TARGETS]


def _ratios(target: Target, contests: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, float]]:
    for one in contests:
        about, speeds = one.get("about", {}), one.get("speed against", {})
        fits = all(about.get(key) in allowed for key, allowed in target.where.items())
        present = [peer for peer in target.peers if peer in speeds]
        if about.get("question") == target.question and fits and present:
            if len(present) < len(target.peers):
                print(f"note: {one['title']} ran without {set(target.peers) - set(present)}")
            yield one["title"], min(speeds[peer][target.contestant] for peer in present)


def table(reached: Iterable[Reached]) -> str:
    """Return a Markdown table of targets, what was measured, and verdicts."""
    lines = ["| work | against | to reach | stretch | measured | |", "|---|---|---|---|---|---|"]
    for target, ratios in reached:
        low, high = min(ratios.values(), default=0.0), max(ratios.values(), default=0.0)
        measured = f"{low:.2f}–{high:.2f}" if f"{low:.2f}" != f"{high:.2f}" else f"{low:.2f}"
        asked = (f"{target.reach:.3g}", f"{target.stretch:.3g}") if target.reach else ("", "")
        cells = [
            target.work,
            target.against,
            *asked,
            measured if ratios else "",
            Reached(target, ratios).verdict,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
