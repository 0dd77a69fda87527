"""Skip-gram training against gensim: quality on two word-similarity sets, and time.

    python benchmarks/word_vectors.py            # about ten minutes on two cores

Both train on the same texts with the same settings (100 dimensions, window 5, 5 negatives, 3
epochs, sample 1e-4, min_count 5) and the same number of threads, in turn, in one process. mmembed's
tables are on disk. gensim runs at its default step size and at one tuned on these sets (0.1), as
mmembed's default was. Quality is the Spearman correlation of cosines with human scores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import contest
import dictionaries
import machine
import numpy as np

from mmembed.training import Corpus, Settings, create_table, train

GENSIM_TUNED = 0.1
Gold = dict[str, list[tuple[str, str, float]]]
Run = dict[str, float]


def run_mmembed(texts: list[list[str]], gold: Gold, seed: int, threads: int, epochs: int) -> Run:
    """Train on tables on disk; the time covers counting, creating, training and committing."""
    settings = Settings(seed=seed, epochs=epochs)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        begin = time.perf_counter()
        corpus = Corpus.of(texts, settings.min_count)
        counted = time.perf_counter()
        table = create_table(Path(folder, "vectors.mmembed"), corpus, settings)
        train(table, corpus, settings, threads=threads)
        end = time.perf_counter()
        scores = similarity(
            np.asarray(table), {w: i for i, w in enumerate(corpus.vocabulary)}, gold
        )
        table.close()
    return {"vocabulary": counted - begin, "training": end - counted, **scores}


def run_gensim(
    texts: list[list[str]], gold: Gold, seed: int, threads: int, epochs: int, alpha: float
) -> Run:
    """Train gensim's Word2Vec, in memory."""
    from gensim.models import Word2Vec

    model = Word2Vec(
        sg=1, vector_size=100, window=5, negative=5, sample=1e-4, min_count=5,
        epochs=epochs, alpha=alpha, workers=threads, seed=seed,
    )  # fmt: skip
    begin = time.perf_counter()
    model.build_vocab(texts)
    counted = time.perf_counter()
    model.train(texts, total_examples=model.corpus_count, epochs=epochs)
    end = time.perf_counter()
    scores = similarity(model.wv.vectors, model.wv.key_to_index, gold)
    return {"vocabulary": counted - begin, "training": end - counted, **scores}


def similarity(vectors: Any, ids: dict[str, int], gold: Gold) -> Run:
    """Return the Spearman correlation for each gold set; pairs with unknown words are left out."""
    from scipy.stats import spearmanr

    scores = {}
    for name, pairs in gold.items():
        known = [(ids[a], ids[b], score) for a, b, score in pairs if a in ids and b in ids]
        left, right = (
            vectors[[pair[side] for pair in known]].astype(np.float64) for side in (0, 1)
        )
        norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        cosines = (left * right).sum(axis=1) / np.maximum(norms, 1e-30)
        scores[name] = float(spearmanr(cosines, [pair[2] for pair in known]).statistic)
    return scores


def load_gold(folder: Path) -> Gold:
    """Read WordSim-353 and SimLex-999 from gensim's own test data."""
    files = {"WordSim-353": "wordsim353.tsv", "SimLex-999": "simlex999.txt"}
    gold: Gold = {}
    for name, file in files.items():
        gold[name] = []
        for line in (folder / file).read_text(encoding="utf-8").splitlines():
            fields = line.split("\t")
            if line.startswith("#") or len(fields) < 3:
                continue
            gold[name].append((fields[0].lower(), fields[1].lower(), float(fields[2])))
    return gold


def compare(runners: dict[str, Callable[[int], Run]], seeds: Sequence[int]) -> dict[str, list[Run]]:
    """Run every contestant with every seed, in turn."""
    results: dict[str, list[Run]] = {name: [] for name in runners}
    for seed in seeds:
        for name, runner in runners.items():
            result = runner(seed)
            results[name].append(result)
            said = "  ".join(f"{key} {value:.3f}" for key, value in result.items())
            print(f"seed {seed}  {name:24} {said}", file=sys.stderr, flush=True)
    return results


def table(results: dict[str, list[Run]], peer: str) -> str:
    """Return medians as a Markdown table; speeds are the peer's training time over the row's."""
    quality = [key for key in results[peer][0] if key not in ("vocabulary", "training")]
    lines = [
        "| | training, s | speed | counting words, s | " + " | ".join(quality) + " |",
        "|---|---|---|---|" + "---|" * len(quality),
    ]

    def median(name: str, key: str) -> float:
        return statistics.median(run[key] for run in results[name])

    for name, runs in results.items():
        ratios = [a["training"] / b["training"] for a, b in zip(results[peer], runs, strict=True)]
        cells = [
            f"{median(name, 'training'):.1f}",
            f"{statistics.median(ratios):.2f}x",
            f"{median(name, 'vocabulary'):.1f}",
            *(
                f"{median(name, key):.3f} ({min(r[key] for r in runs):.3f}–"
                f"{max(r[key] for r in runs):.3f})"
                for key in quality
            ),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_contest(results: dict[str, list[Run]], peer: str) -> contest.Contest:
    """Return the times of training, one for each seed, as one question."""
    times = {name: [run["training"] for run in runs] for name, runs in results.items()}
    return contest.Contest("skip-gram training", times, peer, {"question": "skip-gram"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("benchmark-data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    import gensim

    try:
        texts = dictionaries.load(arguments.data)
    except dictionaries.UnavailableError as reason:
        raise SystemExit(f"no text to measure on: {reason}") from None
    gold = load_gold(Path(gensim.__file__).parent / "test" / "test_data")
    common = {"threads": arguments.threads, "epochs": arguments.epochs}
    peer = "gensim, alpha 0.025"
    results = compare(
        {
            peer: lambda seed: run_gensim(texts, gold, seed, alpha=0.025, **common),
            "gensim, alpha 0.1": lambda seed: run_gensim(
                texts, gold, seed, alpha=GENSIM_TUNED, **common
            ),
            "mmembed, tables on disk": lambda seed: run_mmembed(texts, gold, seed, **common),
        },
        arguments.seeds,
    )
    print(table(results, peer))
    said = {
        "machine": machine.describe("gensim", "scipy"),
        "texts": len(texts),
        "words": sum(map(len, texts)),
        **common,
        "seeds": arguments.seeds,
        "results": results,
        "contests": [as_contest(results, peer).as_dict()],
    }
    print(f"wrote {machine.save('word_vectors', said)}")


if __name__ == "__main__":
    main()
