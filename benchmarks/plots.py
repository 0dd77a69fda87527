"""Pictures of the results: ratios by peer, and time against the size of table and batch.

Must not know how anything is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

OURS, THEIRS = "#1f6f8b", "#c8553d"
Result = Mapping[str, Any]


def draw(contests: Sequence[Result], folder: Path) -> list[Path]:
    """Write the pictures that the results suffice for; return their paths."""
    drawn = [
        _ratios(contests, folder / "ratios.png"),
        _table_size(contests, folder / "table_size.png"),
        _batch_size(contests, folder / "batch_size.png"),
        _limits(contests, folder / "limits.png"),
    ]
    return [path for path in drawn if path]


def _of(contests: Sequence[Result], question: str, **about: Any) -> list[Result]:
    return [
        one
        for one in contests
        if one["about"].get("question") == question
        and all(one["about"].get(key) == value for key, value in about.items())
    ]


# What is shown beside what: question, our contestant, the label of a contest.
_BARS = (
    ("gather", "mmembed", "gather, fresh, dim {dim}"),
    ("gather", "mmembed out=", "gather, out=, dim {dim}"),
    ("bags", "mmembed", "bags, {skew}"),
    ("renorm", "mmembed", "renorm"),
    ("dense backward", "mmembed", "dense backward"),
    ("step", "mmembed", "step, {optimizer}, {skew}"),
    ("fused step", "mmembed", "fused step, {optimizer}, {skew}"),
    ("small batch", "mmembed", "emb(ids), {ids} ids"),
)
_PEERS = {
    "gather": {"mmembed": ("torch",), "mmembed out=": ("torch out=", "take out=", "limit")},
    "fused step": {"mmembed": ("fbgemm", "fbgemm, two halves", "limit")},
    "bags": {"mmembed": ("torch", "fbgemm", "fbgemm, two halves", "limit")},
}
_COLOURS = {
    "torch": THEIRS,
    "torch out=": THEIRS,
    "fbgemm": "#e0a458",
    "fbgemm, two halves": "#b8860b",
    "take out=": "#8a8a8a",
    "limit": "#3d3d3d",
}


def _ratios(contests: Sequence[Result], path: Path) -> Path | None:
    """One bar per contest and peer: how many times as fast we are."""
    bars = []
    for question, contestant, label in _BARS:
        for one in _of(contests, question):
            for peer in _PEERS.get(question, {}).get(contestant, ("torch",)):
                if peer in one["speed against"]:
                    ratio = one["speed against"][peer][contestant]
                    bars.append((label.format(**one["about"]), peer, ratio))
    if not bars:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.19 * len(bars)))
    for at, (label, peer, ratio) in enumerate(bars):
        axes.barh(at, ratio, color=_COLOURS.get(peer, THEIRS))
        axes.text(ratio * 1.03, at, f"{ratio:.2f}", va="center", fontsize=6)
        name = "the machine" if peer == "limit" else peer.removesuffix(" out=")
        axes.text(0.105, at, name, va="center", fontsize=5, color="white")
        repeated = at and bars[at - 1][0] == label
        axes.text(0.095, at, "" if repeated else label, va="center", ha="right", fontsize=6)
    axes.set_xscale("log")
    axes.set_xlim(0.1, 2 * max(ratio for *_, ratio in bars))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([])
    axes.set_ylim(len(bars), -1)
    axes.set_title("mmembed's speed against each peer, same run, 2 threads each", fontsize=8)
    return _save(figure, path)


def _table_size(contests: Sequence[Result], path: Path) -> Path | None:
    """Time of lookups and steps against the number of rows."""
    found = _of(contests, "table size")
    if not found:
        return None
    figure, both = pyplot.subplots(1, 2, figsize=(8, 3))
    for axes, work in zip(both, ("lookup", "step"), strict=True):
        _lines(axes, _of(found, "table size", work=work), "rows", "-")
        axes.set_title(f"{work}, 65,536 uniform ids, dim 8", fontsize=8)
        axes.set_xlabel("rows of the table")
    return _save(figure, path)


def _batch_size(contests: Sequence[Result], path: Path) -> Path | None:
    """Time of lookups and steps against the number of ids."""
    found = _of(contests, "batch size")
    if not found:
        return None
    figure, both = pyplot.subplots(1, 2, figsize=(8, 3))
    for axes, work in zip(both, ("lookup", "step"), strict=True):
        for skew, style in (("uniform", "-"), ("zipf", ":")):
            chosen = _of(found, "batch size", work=work, skew=skew)
            _lines(axes, chosen, "ids", style, f", {skew}")
        axes.set_title(f"{work}, 2 million rows, dim 64", fontsize=8)
        axes.set_xlabel("ids of the batch")
    return _save(figure, path)


def _lines(axes: Any, contests: Sequence[Result], key: str, style: str, suffix: str = "") -> None:
    for name, colour in (("torch", THEIRS), ("mmembed", OURS)):
        at = [one["about"][key] for one in contests]
        took = [one["milliseconds"][name] / one["about"]["times"] for one in contests]
        axes.plot(at, took, style, marker="o", markersize=3, color=colour, label=name + suffix)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6)


def _limits(contests: Sequence[Result], path: Path) -> Path | None:
    """Bytes a second of random rows against their width, beside copies."""
    copies, found = _of(contests, "copy"), _of(contests, "random rows")
    if not copies or not found:
        return None
    figure, axes = pyplot.subplots(figsize=(6, 3.4))
    widest = max(one["about"]["table bytes"] for one in found)
    found = [one for one in found if one["about"]["table bytes"] == widest]
    for name, factor in (("read", 1), ("gather", 2), ("update", 2)):
        at = [4 * one["about"]["dim"] for one in found]
        speed = [factor * one["about"]["bytes"] / one["milliseconds"][name] / 1e6 for one in found]
        axes.plot(at, speed, marker="o", markersize=3, label=f"{name} of random rows")
    for name, style in (("copy, torch", "--"), ("copy, streaming", ":")):
        speed = copies[0]["about"]["bytes"] / copies[0]["milliseconds"][name] / 1e6
        axes.axhline(speed, linestyle=style, color="black", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("bytes of a row")
    axes.set_ylabel("GB/s, read and written")
    axes.set_ylim(0)
    axes.set_title(f"what two threads can move, table of {widest >> 20} MiB", fontsize=8)
    axes.legend(fontsize=6)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)
    return path
