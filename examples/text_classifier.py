"""Tell from its words which package of the standard library a function comes from.

    python examples/text_classifier.py

A bag of words and one linear layer: nn.EmbeddingBag averages the vectors of a function's words,
nn.Linear gives each package a score. Learned from some files, measured on functions of others. The
guess to beat always names the package that has most functions.
"""

from __future__ import annotations

import argparse
import ast
import re
import sysconfig
from collections import Counter
from pathlib import Path

import numpy as np

import mmembed as mm

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test"}


def functions(packages):
    """Return (package, file, words) of every function of the largest packages."""
    library = Path(sysconfig.get_path("stdlib"))
    found = []
    for file in sorted(library.glob("*/**/*.py")):
        place = file.relative_to(library)
        if LEFT_OUT.intersection(place.parts):
            continue
        text = file.read_bytes().decode(errors="replace")
        try:
            tree = ast.parse(text)
        except SyntaxError:  # a template
            continue
        lines = text.splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                source = " ".join(lines[node.lineno - 1 : node.end_lineno])
                words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", source)  # someName gives some, Name
                found.append((place.parts[0], place, [word.lower() for word in words]))
    largest = [name for name, _ in Counter(row[0] for row in found).most_common(packages)]
    return largest, [row for row in found if row[0] in largest]


def batches(rows, vocabulary, classes, size):
    """Yield (word ids of all functions, where each begins, classes)."""
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        texts = [[vocabulary[word] for word in words if word in vocabulary] for *_, words in some]
        offsets = np.cumsum([0, *map(len, texts[:-1])])
        ids = np.array([id for text in texts for id in text], np.int64)
        yield ids, offsets, np.array([classes.index(package) for package, *_ in some])


class Classifier(mm.nn.Module):
    """Scores of the classes for bags of words."""

    def __init__(self, words, dim, classes):
        super().__init__()
        self.bags = mm.nn.EmbeddingBag(words, dim, mode="mean", sparse=True, init="normal(0, 0.1)")
        self.scores = mm.nn.Linear(dim, classes)

    def forward(self, ids, offsets):
        return self.scores(self.bags(ids, offsets))


def main(argv=None):
    """Train and measure; returns the accuracy of the model and of the guess to beat."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=int, default=10, help="classes [%(default)s]")
    parser.add_argument("--functions", type=int, default=20_000, help="at most [%(default)s]")
    parser.add_argument("--dim", type=int, default=32, help="size of a vector [%(default)s]")
    parser.add_argument("--epochs", type=int, default=8, help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="[%(default)s]")
    options = parser.parse_args(argv)
    mm.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)

    classes, rows = functions(options.packages)
    rng.shuffle(rows)
    rows = rows[: options.functions]
    files = sorted({file for _, file, _ in rows})
    held_out = set(rng.permutation(files)[: len(files) // 4])
    train = [row for row in rows if row[1] not in held_out]
    test = [row for row in rows if row[1] in held_out]
    counts = Counter(word for *_, words in train for word in words)
    vocabulary = {word: id for id, (word, n) in enumerate(counts.most_common()) if n > 1}
    print(f"{len(train)} functions to learn from, {len(test)} of other files to test")
    print(f"{len(vocabulary)} words; packages: {', '.join(classes)}")

    model = Classifier(len(vocabulary), options.dim, len(classes))
    optimizer = mm.optim.Adagrad(model.parameters(), lr=0.1)
    for epoch in range(options.epochs):
        rng.shuffle(train)
        losses = []
        for ids, offsets, target in batches(train, vocabulary, classes, 64):
            loss = mm.functional.cross_entropy(model(ids, offsets), target)
            optimizer.zero_grad()
            loss.backward()  # of the table, only the rows of words in the batch
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")

    right = 0
    with mm.no_grad():
        for ids, offsets, target in batches(test, vocabulary, classes, 1024):
            right += int((model(ids, offsets).argmax(1).numpy() == target).sum())
    most = Counter(package for package, *_ in train).most_common(1)[0][0]
    baseline = np.mean([package == most for package, *_ in test])
    accuracy = right / len(test)
    print(f"accuracy {accuracy:.3f}; always {most}: {baseline:.3f}")
    return accuracy, baseline


if __name__ == "__main__":
    main()
