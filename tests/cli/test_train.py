"""`mmembed train`: what it makes, what it prints, what it refuses."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import signal
import types

import numpy as np
import pytest

from mmembed import kernels
from mmembed.cli import main
from mmembed.cli import train as verb
from mmembed.storage import Table
from mmembed.training import corpus as reading
from mmembed.vocab import Vocabulary

from .commands import QUICK, contents, in_a_process, refusal


def words_of(path):
    return set(Vocabulary.open(path / "vocab"))


# -- what it makes ---------------------------------------------------------------------------------


def test_training_makes_a_table_with_words_and_a_log(text, out, capsys):
    status = main(["train", str(text), "--out", str(out), *QUICK])

    said = capsys.readouterr()
    assert status == 0
    assert said.err == ""
    lines = said.out.splitlines()
    assert re.fullmatch(
        r"read 3,120 words of 300 texts in \d+\.\d s; "
        r"21 different ones occur at least 1 times",
        lines[0],
    )
    assert re.fullmatch(
        r"trained 12,480 words in \d+\.\d s \([\d,]+k words/s\), loss \d\.\d{3}; "
        r"committed as step 4",
        lines[1],
    )
    assert lines[2:] == [f"{out}: 21 vectors of 16 float32"]
    with Table.open(out) as table:
        assert table.clean
        assert table.shape == (21, 16)
        assert table.metadata["settings"]["sample"] == 0
        assert "été" in words_of(out)


def test_the_log_is_one_line_of_json_for_each_report(trained):
    reports = [json.loads(line) for line in (trained / "training.jsonl").read_text().splitlines()]

    assert reports[-1]["words"] == reports[-1]["total"] == 12_480
    assert all(r.keys() == {"words", "total", "loss", "lr", "seconds"} for r in reports)


def test_every_option_reaches_the_settings(text, out):
    options = {
        "dim": 3, "epochs": 1, "window": 2, "negatives": 1.5, "min_count": 2, "sample": 0.5,
        "lr": 0.125, "seed": 7,
    }  # fmt: skip
    flags = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items()]

    assert main(["train", str(text), "--out", str(out), *itertools.chain(*flags)]) == 0

    with Table.open(out) as table:
        settings = table.metadata["settings"]
        assert {name: settings[name] for name in options} == options
        assert table.seed == 7
        assert table.dim == 3


def test_the_table_is_in_the_working_folder_by_default(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert main(["train", str(text), *QUICK]) == 0

    assert os.listdir(tmp_path) == ["vectors.mmembed"]


@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_the_same_seed_gives_the_same_table(text, trained, out, threads):
    assert main(["train", str(text), "--out", str(out), *QUICK, "--threads", threads]) == 0

    for name in ("weight.npy", "context.npy"):
        np.testing.assert_array_equal(np.load(out / name), np.load(trained / name))


def test_commits_come_as_often_as_asked(text, out):
    assert main(["train", str(text), "--out", str(out), *QUICK, "--commit-every", "0"]) == 0

    with Table.open(out) as table:
        assert (table.step, table.epoch) == (4, 6)


def test_no_epochs_make_an_untrained_table(text, out, capsys):
    assert main(["train", str(text), "--out", str(out), *QUICK, "--epochs", "0"]) == 0

    assert "trained 0 words" in capsys.readouterr().out
    assert not np.load(out / "context.npy").any()


# -- what it reads ---------------------------------------------------------------------------------


def test_each_line_is_a_text_with_lines(tmp_path, out, capsys):
    (tmp_path / "text").write_text("one two\nthree\n\nfour\n")

    main(["train", str(tmp_path / "text"), "--out", str(out), *QUICK, "--lines"])

    assert "read 4 words of 3 texts" in capsys.readouterr().out


def test_files_of_a_folder_are_picked_and_passed_over(tmp_path, out):
    folder = tmp_path / "texts"
    for name in ("a.txt", "b.md", "skipped/c.txt", "d/also.txt", "d/e.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"word{name[0]}" if name[0] != "d" else name[2:3] * 3)

    main([
        "train", str(folder), "--out", str(out), *QUICK,
        "--files", "*.txt", "--exclude", "skipped", "--exclude", "also.txt",
    ])  # fmt: skip

    assert words_of(out) == {"worda", "eee"}


def test_a_dash_reads_standard_input(text, out, monkeypatch):
    stdin = types.SimpleNamespace(buffer=io.BytesIO(text.read_bytes()))
    monkeypatch.setattr(reading.sys, "stdin", stdin)

    assert main(["train", "-", "--out", str(out), *QUICK]) == 0

    assert len(words_of(out)) == 21


def test_training_again_on_a_folder_does_not_read_the_table_that_is_in_it(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("one two three " * 9)
    monkeypatch.chdir(tmp_path)
    main(["train", ".", *QUICK])
    first = words_of(tmp_path / "vectors.mmembed")

    main(["train", ".", *QUICK, "--force"])

    assert words_of(tmp_path / "vectors.mmembed") == first


# -- bad input -------------------------------------------------------------------------------------


def empty(path):
    path.write_text("")


def without_words(path):
    path.write_text("1 2 3 ... \n\n 4\n")


def binary(path):
    path.write_bytes(b"\x89PNG\r\n\0")


def folder_of_nothing(path):
    path.mkdir()


def folder_of_pictures(path):
    path.mkdir()
    binary(path / "picture.png")


BAD_TEXTS = [
    (empty, "no word occurs at least 1 times in 0 words of text"),
    (without_words, "no word occurs at least 1 times in 0 words of text"),
    (binary, "{path} is not text: it has a zero byte in line 2"),
    (folder_of_nothing, "no text file named '*' in {path}"),
    (folder_of_pictures, "no text file named '*' in {path}"),
    (lambda path: None, "there is no file or folder {path}"),
    (lambda path: path.symlink_to("nowhere"), "there is no file or folder {path}"),
]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("make", "message"), BAD_TEXTS)
def test_text_that_cannot_be_trained_on_is_refused_and_nothing_happens(
    tmp_path, table, out, capsys, make, message, force
):
    path = tmp_path / "text"
    make(path)
    before = contents(tmp_path)
    where = ["--out", str(table), "--force"] if force else ["--out", str(out)]

    status = main(["train", str(path), *QUICK, *where])

    assert refusal(capsys, status).startswith(message.format(path=path))
    assert contents(tmp_path) == before


BAD_NUMBERS = [
    ("--dim", "0", "dim must be at least 1, got 0"),
    ("--dim", str(10**18), "do not fit a file"),
    ("--epochs", "-1", "epochs must be at least 0, got -1"),
    ("--window", "0", "window must be at least 1, got 0"),
    ("--window", "61", "window and block must be at most 60, got 61 and 16"),
    ("--negatives", "-0.5", "negatives must be at least 0, got -0.5"),
    ("--negatives", "nan", "negatives must be at least 0, got nan"),
    ("--min-count", "0", "min_count must be at least 1, got 0"),
    ("--min-count", str(10**30), f"no word occurs at least {10**30} times"),
    ("--sample", "-1", "sample must be at least 0, got -1.0"),
    ("--sample", "nan", "sample must be at least 0, got nan"),
    ("--lr", "0", "lr must be above 0, got 0.0"),
    ("--lr", "nan", "lr must be above 0, got nan"),
    ("--seed", "-1", "seed must be at least 0, got -1"),
    ("--seed", str(2**64), f"seed must be in 0..{2**64 - 1}"),
    ("--threads", "0", f"--threads must be in 1..{kernels.MAX_THREADS}, got 0"),
    ("--lr", "inf", "lr must be finite, got inf"),
    ("--negatives", "inf", "negatives must be finite, got inf"),
    ("--commit-every", "-1", "--commit-every must be at least 0, got -1.0"),
    ("--commit-every", "nan", "--commit-every must be at least 0, got nan"),
]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize(("name", "value", "message"), BAD_NUMBERS)
def test_a_number_out_of_range_is_refused_and_nothing_happens(
    text, tmp_path, out, capsys, name, value, message
):
    status = main(["train", str(text), "--out", str(out), *QUICK, name, value])

    assert message in refusal(capsys, status)
    assert os.listdir(tmp_path) == []


def test_more_threads_than_there_can_be_are_refused(text, out):
    ended = in_a_process("train", text, "--out", out, *QUICK, "--dim", 200, "--threads", 1_000_000)

    assert ended.returncode == 2
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dim", "x"], "argument --dim: invalid int value: 'x'"),
        (["--dim", "1.5"], "argument --dim: invalid int value: '1.5'"),
        (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["--threads"], "argument --threads: expected one argument"),
        (["--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_arguments_that_are_none_are_refused(text, out, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main(["train", str(text), "--out", str(out), *arguments])

    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)
    assert os.listdir(tmp_path) == []


def test_a_pattern_that_is_a_path_is_refused(text, out, capsys):
    status = main(["train", str(text.parent), "--out", str(out), "--files", "/tmp/*.txt"])

    assert "/tmp/*.txt" in refusal(capsys, status)


# -- where it goes ---------------------------------------------------------------------------------


def other_table(path):
    Table.create(path, 3, 2).close()


def file(path):
    path.write_text("mine")


def folder(path):
    path.mkdir()
    file(path / "notes")


def dangling(path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [other_table, file, folder, os.mkdir, dangling])
def test_what_is_there_is_not_replaced_without_force(text, tmp_path, out, capsys, make):
    make(out)
    before = contents(tmp_path)

    status = main(["train", str(text), "--out", str(out), *QUICK])

    assert refusal(capsys, status) == f"{out} exists already; choose another --out, or --force"
    assert contents(tmp_path) == before


def with_a_file_called_super(path):
    folder(path)
    file(path / "super")


@pytest.mark.parametrize(
    "make",
    [
        file, folder, os.mkdir, dangling,
        with_a_file_called_super,
    ],
)  # fmt: skip
def test_what_is_no_table_is_not_replaced_with_force_either(text, tmp_path, out, capsys, make):
    make(out)
    before = contents(tmp_path)

    status = main(["train", str(text), "--out", str(out), *QUICK, "--force"])

    assert refusal(capsys, status) == f"{out} is not a table, so --force does not replace it"
    assert contents(tmp_path) == before


def test_a_folder_that_is_missing_is_named_before_text_is_read(tmp_path, capsys):
    out = tmp_path / "missing" / "out.mmembed"

    status = main(["train", "missing text", "--out", str(out), *QUICK])

    assert refusal(capsys, status) == f"there is no folder {out.parent} to make {out} in"


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_missing_table_may_be_forced(text, tmp_path, out, force):
    assert main(["train", str(text), "--out", str(out), *QUICK, *force]) == 0

    assert os.listdir(tmp_path) == ["out.mmembed"]


def test_force_replaces_a_table(text, tmp_path, out):
    other_table(out)
    (out / "vocab").mkdir()

    assert main(["train", str(text), "--out", str(out), *QUICK, "--force"]) == 0

    assert os.listdir(tmp_path) == ["out.mmembed"]
    with Table.open(out) as table:
        assert table.shape == (21, 16)
    assert len(words_of(out)) == 21


def test_force_replaces_a_damaged_table(text, table):
    (table / "super").write_bytes((table / "super").read_bytes()[:100])

    assert main(["train", str(text), "--out", str(table), *QUICK, "--force"]) == 0

    Table.open(table).close()


def test_force_replaces_a_table_behind_a_link(text, tmp_path, table, out):
    out.symlink_to(table)

    assert main(["train", str(text), "--out", str(out), *QUICK, "--force"]) == 0

    assert not [name for name in os.listdir(tmp_path) if ".old-" in name]


class InjectedError(OSError):
    """What a step that fails raises."""


@pytest.fixture(params=[InjectedError(28, "No space left"), KeyboardInterrupt()], ids=repr)
def failure(request):
    return request.param


def trains_a_bit(failure):
    """Return `train`, but for failing after the second step, of which there is a commit."""
    asked = itertools.count()
    train = verb.train

    def stop():
        if next(asked):
            raise failure
        return False

    def failing(*arguments, **options):
        return train(*arguments, **{**options, "commit_every": 0, "should_stop": stop})

    return failing


def failing_at_once(failure):
    def failing(*arguments, **options):
        raise failure

    return failing


@pytest.mark.parametrize(
    ("name", "fail"),
    [
        ("train", trains_a_bit), ("train", failing_at_once), ("create_table", failing_at_once),
        ("open", failing_at_once),
    ],
)  # fmt: skip
def test_the_old_table_stays_if_training_a_new_one_fails(
    text, table, capsys, monkeypatch, name, fail, failure
):
    before = contents(table.parent)
    monkeypatch.setattr(verb, name, fail(failure), raising=False)

    status = main(["train", str(text), "--out", str(table), *QUICK, "--force", "--dim", "3"])

    assert status == (2 if isinstance(failure, OSError) else 1)
    assert capsys.readouterr().err.count("\n") == 1
    assert contents(table.parent) == before
    Table.open(table, "r+").close()


def test_a_failure_is_one_line(text, out, capsys, monkeypatch):
    monkeypatch.setattr(
        verb, "train", failing_at_once(OSError(28, "No space left on device", "/disk/x"))
    )

    status = main(["train", str(text), "--out", str(out), *QUICK])

    assert refusal(capsys, status) == "/disk/x: No space left on device"


def test_the_signal_handler_is_given_back(text, out):
    before = signal.getsignal(signal.SIGINT)

    main(["train", str(text), "--out", str(out), *QUICK])

    assert signal.getsignal(signal.SIGINT) is before
