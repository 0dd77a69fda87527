"""`mmembed plot`: a PNG where it says, of the words that it should show."""

from __future__ import annotations

import json
import os
import struct
import sys

import pytest

from mmembed.cli import main
from mmembed.storage import Table
from mmembed.vocab import Vocabulary

from .commands import contents, refusal

matplotlib = pytest.importorskip("matplotlib")

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: the words with their weights, and the points of the loss curve."""
    from matplotlib.axes import Axes

    seen = {"words": [], "losses": []}
    annotate, plot = Axes.annotate, Axes.plot

    def note(axes, text, *arguments, **options):
        seen["words"].append((text, options["weight"]))
        return annotate(axes, text, *arguments, **options)

    def curve(axes, x, y, *arguments, **options):
        seen["losses"].append((x, y))
        return plot(axes, x, y, *arguments, **options)

    monkeypatch.setattr(Axes, "annotate", note)
    monkeypatch.setattr(Axes, "plot", curve)
    return seen


def table_of(words, path, dim=4):
    """A table of random rows for some words, as training makes one."""
    Table.create(path, len(words), dim).close()
    Vocabulary(words).save(path / "vocab")
    return path


def test_the_picture_is_in_the_table_by_default(table, capsys):
    status = main(["plot", str(table)])

    said = capsys.readouterr()
    assert status == 0
    assert said.out == f"wrote {table / 'plot.png'}\n"
    assert said.err == ""
    data = (table / "plot.png").read_bytes()
    assert data.startswith(PNG)
    width, height = struct.unpack(">II", data[16:24])
    assert width > height > 400
    Table.open(table).close()


def test_the_picture_is_where_asked_and_nothing_else_changes(table, out, capsys):
    before = contents(table)

    status = main(["plot", str(table), "reda", "--out", str(out.with_suffix(".png"))])

    assert status == 0
    assert capsys.readouterr().out == f"wrote {out.with_suffix('.png')}\n"
    assert out.with_suffix(".png").read_bytes().startswith(PNG)
    assert contents(table) == before


def test_a_picture_is_drawn_anew(table):
    (table / "plot.png").write_text("old")

    main(["plot", str(table)])

    assert (table / "plot.png").read_bytes().startswith(PNG)


def test_the_loss_curve_is_that_of_the_log(table, drawn):
    main(["plot", str(table)])

    reports = [json.loads(line) for line in (table / "training.jsonl").read_text().splitlines()]
    ((words, losses),) = drawn["losses"]
    assert words == [report["words"] / 1e6 for report in reports]
    assert losses == [report["loss"] for report in reports]


def test_words_are_drawn_with_their_neighbors(table, drawn):
    main(["plot", str(table), "reda", "blueb"])

    words = [word for word, _ in drawn["words"]]
    groups = [words[: words.index("blueb")], words[words.index("blueb") :]]
    assert [word for word, weight in drawn["words"] if weight == "bold"] == ["reda", "blueb"]
    assert len(set(words)) == len(words)
    assert {len(group) for group in groups} == {9}
    assert {word[:3] for word in groups[0]} <= {"red", "été"}
    assert {word[:3] for word in groups[1]} <= {"blu", "été"}


def test_without_words_some_are_chosen(table, drawn):
    main(["plot", str(table)])

    words = [word for word, _ in drawn["words"]]
    bold = [word for word, weight in drawn["words"] if weight == "bold"]
    assert len(set(words)) == len(words)
    assert len(bold) == 6
    assert {"red", "blu"} <= {word[:3] for word in bold}


def test_a_word_that_is_named_twice_is_drawn_once(table, drawn):
    main(["plot", str(table), "reda", "reda"])

    assert [word for word, _ in drawn["words"]].count("reda") == 1


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize("dim", [1, 2, 7])
def test_small_tables_are_drawn_too(tmp_path, rows, dim, drawn):
    path = table_of([f"w{i}" for i in range(rows)], tmp_path / "table", dim)

    assert main(["plot", str(path)]) == 0

    assert (path / "plot.png").read_bytes().startswith(PNG)
    assert drawn["losses"] == []
    assert drawn["words"]


@pytest.mark.parametrize(
    "words",
    [
        ["мир", "été", "ελλάδα", "a$b$"],
        ["日本", "語学"],
    ],
)
def test_words_of_any_script_are_drawn_without_a_warning(tmp_path, words):
    path = table_of(words, tmp_path / "table")

    assert main(["plot", str(path)]) == 0


@pytest.mark.parametrize("name", ["picture.png", "picture"])
def test_what_is_said_to_be_written_is_there(table, tmp_path, capsys, name):
    main(["plot", str(table), "--out", str(tmp_path / name)])

    assert capsys.readouterr().out == f"wrote {tmp_path / name}\n"
    assert (tmp_path / name).exists()


def test_a_picture_is_a_png_whatever_its_name(table, tmp_path):
    main(["plot", str(table), "--out", str(tmp_path / "picture.jpg")])

    assert (tmp_path / "picture.jpg").read_bytes().startswith(PNG)


# -- refused ---------------------------------------------------------------------------------------


def test_an_unknown_word_is_refused_and_nothing_is_drawn(table, capsys):
    status = main(["plot", str(table), "reda", "redz"])

    assert "'redz' is not among the 21 words" in refusal(capsys, status)
    assert not (table / "plot.png").exists()


def test_a_missing_folder_is_refused(table, tmp_path, capsys):
    status = main(["plot", str(table), "--out", str(tmp_path / "missing" / "picture.png")])

    assert refusal(capsys, status) == f"{tmp_path}/missing/picture.png: No such file or directory"


@pytest.mark.parametrize(
    "log",
    [
        "no json\n",
        '{"words": 1, "loss"',
        "{}\n",
    ],
)
def test_a_damaged_log_is_refused(table, capsys, log):
    (table / "training.jsonl").write_text(log)

    status = main(["plot", str(table)])

    refusal(capsys, status)
    assert not (table / "plot.png").exists()


def test_without_matplotlib_the_command_that_installs_it_is_named(table, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)

    status = main(["plot", str(table)])

    assert refusal(capsys, status) == "drawing needs matplotlib: pip install 'mmembed[plot]'"
    assert "plot.png" not in os.listdir(table)
