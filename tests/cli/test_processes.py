"""The command as a process: terminals, pipes, signals."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest

from mmembed.cli import main
from mmembed.storage import Table
from mmembed.vocab import Vocabulary

from .commands import COMMAND, QUICK, in_a_process

pytest.importorskip("rich")

ENDLESS = [*QUICK, "--epochs", "100000000"]


def on_a_terminal(*arguments):
    """Run the command with a terminal as standard error; returns (status, stdout, terminal)."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=end,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    )
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # EIO, when nobody has the other end any more
        while some := os.read(terminal, 1 << 16):
            shown += some
    os.close(terminal)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said.decode(), shown.decode()


def start(*arguments, **options):
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whatever started the tests may have had it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


# -- the module ------------------------------------------------------------------------------------


def test_the_package_runs_as_a_module():
    ended = in_a_process("--version")

    assert (ended.returncode, ended.stdout, ended.stderr) == (
        0,
        f"mmembed {version('mmembed')}\n",
        "",
    )


def test_a_refusal_is_the_status_of_the_process(tmp_path):
    ended = in_a_process("info", tmp_path / "missing")

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"mmembed: no table at {tmp_path / 'missing'}")
    assert ended.stderr.count("\n") == 1


def test_text_may_come_through_a_pipe(text, out):
    with open(text, "rb") as file:
        ended = in_a_process("train", "-", "--out", out, *QUICK, stdin=file)

    assert ended.returncode == 0
    assert len(Vocabulary.open(out / "vocab")) == 21


def test_help_loads_nothing_that_is_optional():
    code = (
        "import sys; from mmembed.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in ('rich', 'matplotlib', 'torch', 'numba') if n in sys.modules])"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert ended.stdout.splitlines()[-1] == "[]"


# -- progress --------------------------------------------------------------------------------------


def test_progress_shows_on_a_terminal(text, out):
    status, said, shown = on_a_terminal("train", text, "--out", out, *QUICK)

    assert status == 0
    assert "committed as step 4" in said
    assert "\x1b" not in said
    assert "reading" in shown
    assert "training" in shown
    assert "100%" in shown
    assert "loss" in shown
    assert "words/s" in shown


def test_nothing_shows_on_a_pipe(text, out):
    ended = in_a_process("train", text, "--out", out, *QUICK)

    assert ended.returncode == 0
    assert ended.stderr == ""
    assert ended.stdout.replace("\n", "").isprintable()


def test_without_rich_a_terminal_is_told_how_to_get_it(text, out, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    assert main(["train", str(text), "--out", str(out), *QUICK]) == 0

    lines = set(capsys.readouterr().err.splitlines())
    assert lines == {"for progress: pip install 'mmembed[cli]'"}


def test_without_rich_a_pipe_is_told_nothing(text, out, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)

    assert main(["train", str(text), "--out", str(out), *QUICK]) == 0

    assert capsys.readouterr().err == ""


# -- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", ["1", "2"])
def test_an_interrupt_ends_training_with_a_commit(text, out, threads):
    process = start("train", text, "--out", out, *ENDLESS, "--threads", threads)
    wait_for(out / "training.jsonl", process)

    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert errors == b"mmembed: interrupted; what was trained is committed, and --resume goes on\n"
    assert b"\nstopped after " in said
    with Table.open(out) as table:
        assert table.clean
        assert table.step >= 1
        assert f"committed as step {table.step}\n".encode() in said
        assert table.metadata["words"] < 3120 * 100_000_000
    assert in_a_process("neighbors", out, "reda").returncode == 0


def test_an_interrupt_while_reading_leaves_nothing(tmp_path, out):
    process = start("train", "-", "--out", out, *QUICK, stdin=subprocess.PIPE)
    process.stdin.write(b"word\n" * 100_000)  # more than a pipe holds: it is being read
    process.stdin.flush()
    time.sleep(0.3)  # all is read, and more is waited for

    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    errors = process.stderr.read()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()
    process.stderr.close()

    assert process.returncode == 1
    assert errors == b"mmembed: interrupted\n"
    assert os.listdir(tmp_path) == []


def test_a_killed_training_leaves_a_table_that_opens(text, out):
    process = start("train", text, "--out", out, *ENDLESS, "--commit-every", "0.01")
    wait_for(out / "training.jsonl", process)
    deadline = time.monotonic() + 60
    while step_of(out) == 0 and time.monotonic() < deadline:
        time.sleep(0.005)

    process.kill()
    process.communicate(timeout=60)

    with Table.open(out) as table:
        assert not table.clean
        assert table.step >= 1


def step_of(path):
    with Table.open(path) as table:
        return table.step


def test_a_reader_that_has_had_enough_is_no_error(trained):
    process = start("neighbors", trained, "reda", "--json")
    process.stdout.close()

    errors = process.stderr.read()
    process.stderr.close()

    assert process.wait(timeout=60) == 0
    assert errors == b""
