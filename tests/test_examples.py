"""The examples run as scripts, at a small size, and beat the guess that they name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

# The options of a small run, and whether more is better.
SMALL = {
    "text_classifier.py": (["--functions", "2500", "--packages", "6", "--epochs", "4"], True),
    "click_model.py": (["--functions", "8000", "--rows", "20000", "--epochs", "3"], True),
    "language_model.py": (
        ["--characters", "300000", "--steps", "300", "--dim", "32", "--context", "32"],
        False,
    ),
}


def run(name, options, folder):
    # Threads of several products wait for each other where tests run side by side.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *options],
        cwd=folder, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run():
    assert {file.name for file in EXAMPLES.glob("*.py")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_falls_and_the_guess_is_beaten(name, tmp_path):
    options, more_is_better = SMALL[name]

    said = run(name, options, tmp_path)

    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", said)]
    assert losses[-1] < 0.9 * losses[0]
    said_last = re.findall(r"^\w+ (\d+\.\d+); .*: (\d+\.\d+)$", said, re.MULTILINE)[-1]
    found, baseline = map(float, said_last)
    gain = found / baseline if more_is_better else baseline / found
    assert gain > 1.02
    assert list(tmp_path.iterdir()) == []


def test_the_tables_of_the_click_model_stay_if_asked(tmp_path):
    options = [
        "--functions",
        "500",
        "--rows",
        "1000",
        "--epochs",
        "1",
        "--out",
        tmp_path,
    ]

    run("click_model.py", options, tmp_path)

    files = sorted(tmp_path.glob("*.mmembed/weight.npy"))
    assert len(files) == 6
    assert all(np.load(file, mmap_mode="r").shape == (1000, 16) for file in files)


def test_readme_names_every_example():
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")

    assert all(f"(examples/{name})" in readme for name in SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_an_example_fits_on_a_few_screens(name):
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= 150
