"""A click model in the manner of DLRM (arXiv:1906.00091), hashed features in tables on disk.

    python examples/click_model.py

The events are real and on every machine: a function of the standard library is shown a name, and
clicks on it if it calls it. For each call there is a name that it does not call, drawn by
popularity. Learned from some functions, measured on others. The guess to beat counts how often
functions of the same package clicked on the name.
"""

from __future__ import annotations

import argparse
import ast
import sysconfig
import tempfile
import zlib
from pathlib import Path

import numpy as np

import mmembed as mm
from mmembed import nn

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
FEATURES = ("name", "file", "package", "function", "package and name", "file and name")


def functions():
    """Yield (package, file, function, lines, arguments, names called) of the standard library."""
    library = Path(sysconfig.get_path("stdlib"))
    for file in sorted(library.glob("**/*.py")):
        place = file.relative_to(library)
        if LEFT_OUT.intersection(place.parts):
            continue
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):  # a template
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                called = [x.func for x in ast.walk(node) if isinstance(x, ast.Call)]
                names = {getattr(x, "attr", getattr(x, "id", None)) for x in called} - {None}
                lines = node.end_lineno - node.lineno
                yield place.parts[0], str(place), node.name, lines, len(node.args.args), names


def events(some, popular, rng, rows):
    """Return hashed features, dense features, and whether clicked: two events for each call."""
    found = []
    for package, file, function, lines, arguments, names in some:
        others = set(popular[rng.integers(len(popular), size=len(names))])
        for name in [*sorted(names), *sorted(others - names)]:
            values = (name, file, package, function, f"{package} {name}", f"{file} {name}")
            ids = [zlib.crc32(value.encode()) % rows for value in values]
            found.append((ids, np.log1p([lines, arguments]), name in names))
    ids, dense, clicked = map(np.array, zip(*found, strict=True))
    return ids, dense.astype(np.float32), clicked


class ClickModel(nn.Module):
    """Dot products of every pair of features' vectors, and a perceptron above them."""

    def __init__(self, folder, rows, dim, dense):
        super().__init__()
        self.tables = nn.ModuleList(
            nn.Embedding(
                rows, dim, sparse=True, init="normal(0, 0.1)", path=folder / f"{f}.mmembed"
            )
            for f in FEATURES
        )
        self.bottom = nn.Sequential(nn.Linear(dense, 16), nn.ReLU(), nn.Linear(16, dim))
        self.pairs = np.tril_indices(len(FEATURES) + 1, -1)
        joined = dim + len(self.pairs[0])
        self.top = nn.Sequential(nn.Linear(joined, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, ids, dense):
        below = self.bottom(dense)
        vectors = mm.stack([below, *(t(ids[:, i]) for i, t in enumerate(self.tables))], 1)
        products = mm.bmm(vectors, vectors.mT)[:, self.pairs[0], self.pairs[1]]
        return self.top(mm.cat([below, products], 1)).squeeze(-1)


def auc(scores, clicked):
    """Return the share of pairs (clicked, not clicked) that the scores put in order."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    yes, no = clicked.sum(), (~clicked).sum()
    return (ranks[clicked].sum() - yes * (yes + 1) / 2) / (yes * no)


def train(options, folder):
    """Train, measure and commit; returns the AUC of the model and of the guess to beat."""
    mm.manual_seed(0)
    rng = np.random.default_rng(0)

    chosen = [function for function in functions() if function[-1]]
    rng.shuffle(chosen)
    chosen = chosen[: options.functions]
    known, test = chosen[len(chosen) // 5 :], chosen[: len(chosen) // 5]
    popular = np.array([name for *_, names in known for name in sorted(names)])
    ids, dense, clicked = events(known, popular, rng, options.rows)
    test_ids, test_dense, test_clicked = events(test, popular, rng, options.rows)
    print(f"{len(ids)} events to learn from, {len(test_ids)} of other functions to test")

    model = ClickModel(folder, options.rows, 16, dense.shape[1])
    tables = mm.optim.RowwiseAdagrad(model.tables.parameters(), lr=0.03)
    layers = mm.optim.Adam([*model.bottom.parameters(), *model.top.parameters()], lr=2e-3)
    for epoch in range(options.epochs):
        losses = []
        for batch in np.array_split(rng.permutation(len(ids)), max(2, len(ids) // 256)):
            scores = model(ids[batch], mm.from_numpy(dense[batch]))
            loss = mm.functional.binary_cross_entropy_with_logits(scores, clicked[batch])
            model.zero_grad()
            loss.backward()
            tables.step()
            layers.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")

    with mm.no_grad():
        found = auc(model(test_ids, mm.from_numpy(test_dense)).numpy(), test_clicked)
    pair = FEATURES.index("package and name")
    views = np.bincount(ids[:, pair], minlength=options.rows)
    clicks = np.bincount(ids[:, pair], clicked, minlength=options.rows)
    baseline = auc(((clicks + 0.5) / (views + 1))[test_ids[:, pair]], test_clicked)
    print(f"AUC {found:.3f}; click rate of package and name: {baseline:.3f}")
    for embedding in model.tables:
        embedding.table.commit()
        embedding.table.close()
    return found, baseline


def main(argv=None):
    """Train with the options given; returns what `train` returns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--functions", type=int, default=20_000, help="at most [%(default)s]")
    parser.add_argument("--rows", type=int, default=50_000, help="of each table [%(default)s]")
    parser.add_argument("--epochs", type=int, default=2, help="[%(default)s]")
    parser.add_argument(
        "--out", type=Path, help="keep the tables there; a second run goes on with them"
    )
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        return train(options, options.out or Path(temporary))


if __name__ == "__main__":
    main()
