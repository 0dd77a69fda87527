"""A text and a table trained on it, for the tests of the command."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from mmembed.cli import main

from .commands import QUICK


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """A file of 300 texts of ten words each, of two worlds of ten words; in two of five été too."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    texts = []
    for number in range(300):
        world = ("red", "blue")[number % 2]
        words = [world + "abcdefghij"[i] for i in rng.integers(0, 10, 10)]
        texts.append(" ".join(words + ["Été"] * (number % 5 < 2)))
    path.write_text("\n\n".join(texts))
    return path


@pytest.fixture(scope="session")
def trained(text, tmp_path_factory):
    """A table trained on the text; not to be changed."""
    path = tmp_path_factory.mktemp("trained") / "words.mmembed"
    assert main(["train", str(text), "--out", str(path), *QUICK]) == 0
    return path


@pytest.fixture
def table(trained, tmp_path):
    """A copy of the trained table, in a folder of its own."""
    return shutil.copytree(trained, tmp_path / "home" / "words.mmembed")


@pytest.fixture
def out(tmp_path):
    """Where a test may make its table."""
    return tmp_path / "out.mmembed"
