"""`mmembed demo`: the whole story in one command, on text that every machine with Python has.

Must not know more than the other verbs, which it calls.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import MissingDependencyError
from ..training import Settings
from ..vocab import Vocabulary
from . import plot, train

NOT_THE_LIBRARY = ("site-packages", "dist-packages", "test", "tests", "idle_test")
WORDS = ("minutes", "socket", "thread", "encode", "color", "date", "file", "true")


def add_to(commands: Any) -> None:
    """Add the verb `demo`."""
    parser = commands.add_parser(
        "demo",
        help="train on the Python standard library, reopen, list neighbors, draw",
        description="Train word vectors on the sources and docstrings of Python's standard "
        "library, commit them, reopen the table in another process, list neighbors of some words, "
        "and draw the loss and a picture of the words.",
    )
    parser.add_argument("--out", default="demo.mmembed", help="table to make [%(default)s]")
    parser.add_argument("--force", action="store_true", help="replace a table that is there")
    train.option(parser, "--threads", int, len(os.sched_getaffinity(0)), "threads to use")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, commit, reopen, list, draw; says where everything lies."""
    train.check_threads(arguments.threads)
    out = train.free_place(arguments.out, arguments.force)
    settings = Settings(epochs=6, min_count=10)
    source = sysconfig.get_path("stdlib")
    print(f"1. Train on the standard library's sources, {source}")
    corpus = train.read_corpus(source, settings, pattern="*.py", exclude=NOT_THE_LIBRARY)
    status = train.train_to(out, corpus, settings, threads=arguments.threads)
    if status:
        return status
    print("\n2. Reopen the table in another process, and list neighbors")
    sys.stdout.flush()
    command = [sys.executable, "-m", "mmembed", "neighbors", str(out.absolute()), "-k", "6"]
    # In the table's folder, where no other folder called mmembed is taken for the package.
    subprocess.run([*command, *_known(corpus.vocabulary)], check=True, cwd=out)
    print("\n3. Draw the loss and some words")
    picture = out / "plot.png"
    try:
        plot.draw(out, _known(corpus.vocabulary), picture)
    except MissingDependencyError as error:
        print(f"left out: {error}")
    print("\nWhat there is now:")
    for file, what in _files(out):
        print(f"  {file!s:{len(str(out)) + 38}} {what}")
    print(
        "\nThe vectors are an ordinary array file:\n"
        f'  python -c "import numpy; print(numpy.load({str(out / "weight.npy")!r}, '
        "mmap_mode='r').shape)\""
    )
    return 0


def _known(vocabulary: Vocabulary) -> list[str]:
    return [word for word in WORDS if word in vocabulary]


def _files(out: Path) -> Iterator[tuple[Path, str]]:
    said = {
        "super": "what the table is, and its last two commits",
        "weight.npy": "word vectors",
        "context.npy": "context vectors",
        "vocab": "the words",
        train.LOG: "loss and speed during training",
        "plot.png": "the picture",
        "undo": "what rows were at the last commit",
        "LOCK": "held by whoever writes",
    }
    for file in sorted(out.iterdir()):
        yield file, said.get(file.name, "the optimizer's state" if file.suffix == ".npy" else "")
