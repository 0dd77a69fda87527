"""`mmembed demo`: the whole story, on a small folder in the place of the standard library."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

from mmembed.cli import demo, inspect, main
from mmembed.storage import Table
from mmembed.vocab import Vocabulary

from .commands import contents, refusal

pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
    """A folder of sources with three of the demo's words, and folders that are passed over."""
    library = tmp_path / "library"
    for name, words in {
        "one.py": "file open date true false",
        "deep/two.py": "file close date minutes",
        "notes.txt": "notes",
        "test/three.py": "tested",
        "site-packages/four.py": "installed",
    }.items():
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text(f"{words}\n\n" * 60)
    monkeypatch.setattr(demo, "sysconfig", types.SimpleNamespace(get_path={"stdlib": library}.get))
    return library


def test_the_demo_tells_the_whole_story(library, out, capfd, monkeypatch):
    def not_here(*_):
        raise AssertionError("the demo lists neighbors in this process")

    monkeypatch.setattr(inspect, "run_neighbors", not_here)

    status = main(["demo", "--out", str(out)])

    said = capfd.readouterr()
    assert status == 0
    assert said.err == "" or "the compiled kernels are missing" in said.err
    assert f"1. Train on the standard library's sources, {library}" in said.out
    training, rest = said.out.split("\n2. ")
    neighbors, rest = rest.split("\n3. ")
    assert "committed as step 6" in training
    assert [line.split()[0] for line in neighbors.splitlines()[1:]] == [
        "minutes", "date", "file", "true",
    ]  # fmt: skip
    assert all(len(line.split()) == 13 for line in neighbors.splitlines()[1:])
    assert "left out" not in rest
    with Table.open(out) as table:
        assert table.clean
    words = set(Vocabulary.open(out / "vocab"))
    assert {"file", "minutes", "close"} <= words
    assert not words & {"tested", "installed", "notes"}


def test_every_file_that_the_demo_names_is_there_and_no_other(out, capfd):
    main(["demo", "--out", str(out)])

    after = capfd.readouterr().out.split("What there is now:\n")[1]
    files = dict(re.findall(r"^  (\S+) +(.*)$", after.split("\n\n")[0], re.MULTILINE))
    assert {Path(name) for name in files} == set(out.iterdir())
    assert all(what for what in files.values())
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_that_the_demo_ends_with_works(out, capfd):
    main(["demo", "--out", str(out)])

    command = shlex.split(capfd.readouterr().out.splitlines()[-1])
    ended = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True)
    assert command[:2] == ["python", "-c"]
    assert ended.stdout == f"({len(Vocabulary.open(out / 'vocab'))}, 100)\n"


def test_without_matplotlib_the_demo_leaves_the_picture_out(out, capfd, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)

    status = main(["demo", "--out", str(out)])

    assert status == 0
    said = capfd.readouterr().out
    assert "left out: drawing needs matplotlib: pip install 'mmembed[plot]'" in said
    assert "plot.png" not in said


def test_the_demo_replaces_nothing_unless_forced(out, capfd):
    Table.create(out, 3, 2).close()
    before = contents(out)

    status = main(["demo", "--out", str(out)])

    assert refusal(capfd, status) == f"{out} exists already; choose another --out, or --force"
    assert contents(out) == before
    assert main(["demo", "--out", str(out), "--force"]) == 0


def test_an_interrupted_demo_ends_after_its_training(out, capfd, monkeypatch):
    train = demo.train.train
    monkeypatch.setattr(
        demo.train, "train", lambda *a, **o: train(*a, **{**o, "should_stop": lambda: True})
    )

    status = main(["demo", "--out", str(out)])

    assert status == 1
    assert "2. " not in capfd.readouterr().out
    Table.open(out).close()


def test_the_demo_refuses_no_threads(out, capfd):
    status = main(["demo", "--out", str(out), "--threads", "0"])

    assert "--threads must be in 1.." in refusal(capfd, status)
    assert not out.exists()
