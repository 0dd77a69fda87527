"""What the README says can be run, runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

NO_COMPILER = "ignore:the compiled kernels are missing:RuntimeWarning"
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_library_example_runs_and_is_about_twenty_lines(tmp_path):
    (example,) = blocks("python")

    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", NO_COMPILER, "-c", example],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "(100000, 32)",
        "(3, 32) ('weight', 'weight.rowwise_adagrad.sum') 20",
    ]
    assert len([line for line in example.splitlines() if line.strip()]) <= 24


def test_there_are_two_commands_and_ci_runs_the_second():
    first, second = blocks("bash")
    ci = (Path(__file__).parent.parent / ".ci" / "run").read_text(encoding="utf-8")

    assert "mmembed demo" in first
    assert "pytest" in second
    assert "n == 2" in ci


def test_every_link_of_the_documents_leads_to_a_file():
    root = Path(__file__).parent.parent
    for document in [*root.glob("*.md"), *root.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).exists(), f"{document.name}: {link}"
