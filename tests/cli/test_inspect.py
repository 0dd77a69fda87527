"""`mmembed info` and `mmembed neighbors`: what they say of a table, and what they refuse."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version

import numpy as np
import pytest

from mmembed.cli import main
from mmembed.neighbors import nearest
from mmembed.storage import Table
from mmembed.vocab import Vocabulary

from .commands import contents, refusal


def said_by(capsys, *arguments):
    """Run the command, which must succeed and warn of nothing; returns what it printed."""
    assert main([str(argument) for argument in arguments]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


# -- info ------------------------------------------------------------------------------------------


def test_info_as_json_says_what_the_table_is(trained, capsys):
    facts = json.loads(said_by(capsys, "info", trained, "--json"))

    with Table.open(trained) as table:
        assert facts["path"] == str(trained)
        assert (facts["rows"], facts["dim"], facts["dtype"]) == (21, 16, "float32")
        assert (facts["step"], facts["epoch"], facts["clean"]) == (4, 2, True)
        assert facts["uuid"] == str(table.uuid)
        assert facts["seed"] == 0
        assert facts["durability"] == "power"
        assert facts["counters"] == table.counters
        assert facts["metadata"] == table.metadata
        assert list(facts["columns"]) == list(table.columns)
        assert facts["columns"]["context"] == {
            "shape": [21, 16], "dtype": "float32", "bytes": 21 * 16 * 4, "init": "zeros",
        }  # fmt: skip
    assert facts["columns"]["weight.rowwise_adagrad.sum"]["shape"] == [21]
    assert facts["words"] == 21
    vocabulary = Vocabulary.open(trained / "vocab")
    assert facts["most frequent"].split() == list(vocabulary)[:10]
    files = [path for path in trained.rglob("*") if path.is_file()]
    assert facts["bytes on disk"] == sum(path.stat().st_blocks * 512 for path in files)


def test_info_says_the_same_in_lines(trained, capsys):
    lines = dict(line.split(maxsplit=1) for line in said_by(capsys, "info", trained).splitlines())

    assert lines["path"] == str(trained)
    assert lines["rows"] == "21"
    assert lines["clean"] == "True"
    assert json.loads(lines["metadata"])["trainer"] == "skip-gram"
    assert lines["words"] == "21"


def test_info_has_a_line_for_each_column(trained, capsys):
    columns = [
        line.split(maxsplit=1)[1]
        for line in said_by(capsys, "info", trained).splitlines()
        if line.startswith("column ")
    ]

    assert columns[1] == "context: [21, 16] float32, 1.34 kB, starts as zeros"
    assert len(columns) == 4


def test_info_tells_tables_without_words_too(tmp_path, capsys):
    Table.create(tmp_path / "plain", 3, 2, dtype="float64").close()

    facts = json.loads(said_by(capsys, "info", tmp_path / "plain", "--json"))

    assert (facts["rows"], facts["dtype"]) == (3, "float64")
    assert "words" not in facts


def test_info_tells_a_table_that_is_being_written(tmp_path, capsys):
    with Table.create(tmp_path / "open", 3, 2) as table:
        table.write([0], 1)

        assert json.loads(said_by(capsys, "info", tmp_path / "open", "--json"))["clean"] is False


def test_info_changes_nothing(table, capsys):
    before = contents(table)

    said_by(capsys, "info", table)
    said_by(capsys, "neighbors", table, "reda")

    assert contents(table) == before


def test_info_tells_sizes_in_ordinary_numbers(tmp_path, capsys):
    Table.create(tmp_path / "table", 2499, 100, init="zeros").close()  # 999,600 bytes

    assert "e+" not in said_by(capsys, "info", tmp_path / "table")


# -- neighbors -------------------------------------------------------------------------------------


def test_neighbors_are_the_nearest_words(trained, capsys):
    found = json.loads(said_by(capsys, "neighbors", trained, "reda", "été", "-k", "3", "--json"))

    assert list(found) == ["reda", "été"]
    vocabulary = Vocabulary.open(trained / "vocab")
    rows = np.load(trained / "weight.npy")
    for word, near in found.items():
        row = vocabulary[word]
        ids, cosines = nearest(rows, rows[row], 3, exclude=[row])
        assert [other for other, _ in near] == [vocabulary.word(i) for i in ids[0]]
        np.testing.assert_allclose([c for _, c in near], cosines[0], atol=1e-4)


def test_neighbors_of_a_world_are_of_that_world(trained, capsys):
    found = json.loads(said_by(capsys, "neighbors", trained, "redb", "bluec", "-k", "5", "--json"))

    assert {word[:3] for word, _ in found["redb"]} == {"red"}
    assert {word[:3] for word, _ in found["bluec"]} == {"blu"}


def test_neighbors_are_a_line_for_each_word(trained, capsys):
    said = said_by(capsys, "neighbors", trained, "reda", "blueb", "-k", "2")
    found = json.loads(said_by(capsys, "neighbors", trained, "reda", "blueb", "-k", "2", "--json"))

    lines = said.splitlines()
    assert lines[0].startswith("reda   " + "  ".join(f"{w} {c:.2f}" for w, c in found["reda"][:1]))
    assert [line.split()[0] for line in lines] == ["reda", "blueb"]
    assert all(len(line.split()) == 1 + 2 * 2 for line in lines)


@pytest.mark.parametrize(("options", "count"), [([], 10), (["-k", "1"], 1), (["-k", "999"], 20)])
def test_there_are_as_many_neighbors_as_asked_or_as_there_are(trained, capsys, options, count):
    found = json.loads(said_by(capsys, "neighbors", trained, "reda", "--json", *options))

    assert len(found["reda"]) == count
    assert "reda" not in [word for word, _ in found["reda"]]


def test_the_only_word_has_no_neighbors(tmp_path, capsys):
    (tmp_path / "text").write_text("alone " * 9)
    main(["train", str(tmp_path / "text"), "--out", str(tmp_path / "table"), "--dim", "2"])
    capsys.readouterr()

    said = said_by(capsys, "neighbors", tmp_path / "table", "alone")
    assert said.split() == ["alone"]


@pytest.mark.parametrize("k", ["0", "-1"])
def test_a_count_below_one_is_refused(trained, capsys, k):
    status = main(["neighbors", str(trained), "reda", "-k", k])

    assert refusal(capsys, status) == f"-k must be at least 1, got {k}"


@pytest.mark.parametrize("words", [["redd", "redz"], ["redz", "redd"], ["redz"]])
def test_an_unknown_word_is_refused_with_words_like_it(trained, capsys, words):
    status = main(["neighbors", str(trained), *words])

    message = refusal(capsys, status)
    assert message.startswith("'redz' is not among the 21 words of the vocabulary; did you mean 'r")


def test_words_are_known_in_lower_case_only(trained, capsys):
    status = main(["neighbors", str(trained), "Reda"])

    assert "did you mean 'reda'" in refusal(capsys, status)


# -- tables that are none --------------------------------------------------------------------------


def cut(name, size):
    def damage(table):
        (table / name).write_bytes((table / name).read_bytes()[:size])

    return damage


def replaced_by(make):
    def damage(table):
        shutil.rmtree(table)
        make(table)

    return damage


def folder_of_notes(path):
    path.mkdir()
    (path / "notes").write_text("mine")


def words_removed(table):
    shutil.rmtree(table / "vocab")


def words_of_another(table):
    shutil.rmtree(table / "vocab")
    Vocabulary(["reda", "x"]).save(table / "vocab")


BAD_TABLES = [
    (replaced_by(lambda path: None), "no table at {table}"),
    (replaced_by(folder_of_notes), "{table}/super is missing: not a table"),
    (replaced_by(lambda path: path.mkdir()), "{table}/super is missing: not a table"),
    (replaced_by(lambda path: path.write_text("mine")), "{table} is not a directory"),
    (replaced_by(lambda path: path.symlink_to("nowhere")), "no table at {table}"),
    (cut("super", 1000), "{table}/super has 1000 bytes"),
    (cut("super", 0), "{table}/super has 0 bytes"),
    (cut("weight.npy", -1), "{table}/weight.npy is truncated"),
    (cut("context.npy", 500), "{table}/context.npy is truncated"),
    (lambda table: (table / "weight.npy").unlink(), "{table}/weight.npy"),
    (lambda table: np.save(table / "weight.npy", np.ones((21, 16))), "{table}/weight.npy"),
    (cut("vocab/keys", 10), "{table}/vocab: its words, offsets and counts disagree"),
    (cut("vocab/counts.npy", -8), "{table}/vocab: not a vocabulary"),
    (cut("vocab/counts.npy", 0), "{table}/vocab: not a vocabulary"),
]


@pytest.mark.parametrize(
    "command", [["info"], ["neighbors", "reda"], ["plot"]], ids=["info", "neighbors", "plot"]
)
@pytest.mark.parametrize(("damage", "message"), BAD_TABLES)
def test_what_is_no_sound_table_is_refused_and_nothing_is_changed(
    table, capsys, command, damage, message
):
    damage(table)
    before = contents(table.parent)

    status = main([command[0], str(table), *command[1:]])

    assert refusal(capsys, status).startswith(message.format(table=table))
    assert contents(table.parent) == before


@pytest.mark.parametrize("command", [["neighbors", "reda"], ["plot"]], ids=["neighbors", "plot"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (words_removed, "{table} has no vocabulary; train makes one"),
        (words_of_another, "{table} has 21 rows, its vocabulary 2 words"),
    ],
)
def test_a_table_without_its_words_is_refused(table, capsys, command, damage, message):
    damage(table)

    status = main([command[0], str(table), *command[1:]])

    assert refusal(capsys, status).startswith(message.format(table=table))


def test_a_table_of_more_words_than_rows_is_refused(table, capsys):
    shutil.rmtree(table / "vocab")
    Vocabulary([f"word{i}" for i in range(99)]).save(table / "vocab")

    status = main(["neighbors", str(table), "word98"])

    assert refusal(capsys, status) == f"{table} has 21 rows, its vocabulary 99 words"


# -- the command -----------------------------------------------------------------------------------


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out == f"mmembed {version('mmembed')}\n"


@pytest.mark.parametrize("arguments", [[], ["paint"], ["info"], ["neighbors", "table"], ["train"]])
def test_a_command_that_is_none_is_refused_with_how_to_use_it(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.startswith("usage: mmembed")


@pytest.mark.parametrize("command", [[], ["train"], ["info"], ["neighbors"], ["plot"], ["demo"]])
def test_every_verb_has_help(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: mmembed")
