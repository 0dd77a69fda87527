"""`mmembed plot`: the loss of a training run and a picture of some words, as one PNG.

Must not know how tables are stored or trained. matplotlib is an extra and loaded when needed.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CorruptTableError, MissingDependencyError
from ..neighbors import nearest
from ..storage import Table
from ..vocab import Vocabulary
from .inspect import open_vocabulary
from .train import LOG

FloatArray = npt.NDArray[np.floating[Any]]

GROUPS = 6  # words whose neighbors are drawn when none are named
NEAR = 8  # neighbors drawn of each


def add_to(commands: Any) -> None:
    """Add the verb `plot`."""
    parser = commands.add_parser(
        "plot",
        help="draw the loss curve and a picture of words as a PNG",
        description="Draw the loss of the training run, and words with their nearest neighbors in "
        "the plane of their two principal components.",
    )
    parser.add_argument("table")
    parser.add_argument("words", nargs="*", metavar="WORD", help="words to draw with neighbors")
    parser.add_argument("--out", metavar="PNG", help="picture to write [TABLE/plot.png]")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw; prints where the picture is."""
    out = Path(arguments.out) if arguments.out else Path(arguments.table) / "plot.png"
    draw(arguments.table, arguments.words, out)
    print(f"wrote {out}")
    return 0


def draw(path: str | Path, words: Sequence[str], out: Path) -> None:
    """Write the picture of a table to `out`.

    Raises
    ------
    MissingDependencyError  matplotlib is not installed.
    VocabularyError         a word is not in the vocabulary.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "drawing needs matplotlib: pip install 'mmembed[plot]'"
        ) from None
    with Table.open(path) as table:
        vocabulary = open_vocabulary(table)
        groups = _groups(table, vocabulary, words)
        curve = _curve(Path(path) / LOG)
        figure = Figure(figsize=(13, 5.5), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.4])
        _draw_loss(left, curve)
        _draw_words(right, table, vocabulary, groups, mpl.color_sequences["tab10"])
    with warnings.catch_warnings():
        # Of scripts that matplotlib's font lacks; their letters are boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(out, dpi=120, format="png")


def _curve(log: Path) -> list[tuple[float, float]]:
    """Return (millions of words, loss) of every report in a log; none if there is no log."""
    try:
        reports = [json.loads(line) for line in log.read_text().splitlines()]
        return [(report["words"] / 1e6, float(report["loss"])) for report in reports]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptTableError(f"{log} is not the log of a training run: {error!r}") from None


def _groups(table: Table, vocabulary: Vocabulary, words: Sequence[str]) -> list[list[int]]:
    """Return groups of ids: each word and its nearest neighbors; none is in two groups."""
    centers = [vocabulary[word] for word in dict.fromkeys(words)] or _telling_words(table)
    groups: list[list[int]] = []
    taken = set(centers)
    for center in centers:
        near, _ = nearest(table, table[center][None], 4 * NEAR, [center])
        group = [int(i) for i in near[0] if int(i) not in taken][:NEAR]
        taken.update(group)
        groups.append([center, *group])
    return groups


def _telling_words(table: Table) -> list[int]:
    """Return frequent words that are far from each other, greedily.

    The most frequent words of all are passed over: they go with every word.
    """
    first, last = min(100, table.rows // 4), min(1000, table.rows)
    rows = table[np.arange(first, last)].astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    chosen = [0] if len(rows) else []
    while 0 < len(chosen) < min(GROUPS, len(rows)):
        closeness = (rows @ rows[chosen].T).max(axis=1)
        chosen.append(int(closeness.argmin()))
    return [first + i for i in chosen]


def _draw_loss(axes: Any, curve: list[tuple[float, float]]) -> None:
    axes.set_title("training loss")
    axes.set_xlabel("words (millions)")
    axes.set_ylabel("mean loss of a pair and its noise (nats)")
    axes.grid(alpha=0.3)
    if curve:
        axes.plot(*map(list, zip(*curve, strict=True)), "o-", ms=3)
    else:
        axes.text(0.5, 0.5, f"no {LOG} in the table", ha="center", transform=axes.transAxes)


def _draw_words(
    axes: Any,
    table: Table,
    vocabulary: Vocabulary,
    groups: list[list[int]],
    colors: Sequence[Any],
) -> None:
    points = _plane(table[[i for group in groups for i in group]])
    axes.set_title("words and their nearest neighbors, two principal components")
    start = 0
    for number, group in enumerate(groups):
        color = colors[number % len(colors)]
        here = points[start : start + len(group)]
        start += len(group)
        axes.scatter(here[:, 0], here[:, 1], color=color, s=14)
        for i, (x, y) in zip(group, here, strict=True):
            axes.annotate(
                vocabulary.word(i), (x, y), xytext=(3, 2), textcoords="offset points",
                fontsize=8, color=color, weight="bold" if i == group[0] else "normal",
            )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])


def _plane(rows: FloatArray) -> FloatArray:
    """Return (n, 2): unit rows in the plane of their two largest principal components."""
    unit = rows.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    centered = unit - unit.mean(axis=0, keepdims=True)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    flat = centered @ axes[:2].T
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
