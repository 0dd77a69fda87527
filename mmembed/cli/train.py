"""`mmembed train`: word vectors from plain text.

Must not know how text is read or how training works.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from ..errors import TableExistsError
from ..kernels import MAX_THREADS
from ..storage import Table, looks_like_table
from ..training import (
    Corpus,
    Progress,
    Settings,
    create_table,
    read_texts,
    recorded_settings,
    text_files,
    train,
)
from .progress import progress

LOG = "training.jsonl"  # in the table's directory: one line for each report


def add_to(commands: Any) -> None:
    """Add the verb `train`."""
    default = Settings()
    parser = commands.add_parser(
        "train",
        help="train word vectors (skip-gram with negative sampling) from plain text",
        description="Train word vectors from plain UTF-8 text into a table on disk: the vectors, "
        "their context vectors and the optimizer's state. Words are runs of letters, lower-cased.",
    )
    parser.add_argument("text", help="a file, a folder (every text file below it), or - for stdin")
    parser.add_argument("--out", default="vectors.mmembed", help="table to make [%(default)s]")
    parser.add_argument("--force", action="store_true", help="replace a table that is there")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the training of --out, however it ended, from its last commit; its text "
        "and settings must be those that it began with",
    )
    parser.add_argument(
        "--lines",
        action="store_true",
        help="each line is a text of its own; otherwise blank lines separate texts",
    )
    parser.add_argument(
        "--files",
        default="*",
        metavar="PATTERN",
        help="names of files of a folder to read [%(default)s]",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="NAME",
        help="file or folder of a folder to pass over, a name or pattern; may be repeated. "
        "Tables, *.mmembed, are passed over",
    )
    option(parser, "--dim", int, default.dim, "size of the vectors")
    option(parser, "--epochs", int, default.epochs, "passes over the text")
    option(parser, "--window", int, default.window, "largest distance of a word and its context")
    option(parser, "--negatives", float, default.negatives, "weight of noise words per context")
    option(parser, "--min-count", int, default.min_count, "leave out words that are rarer")
    option(parser, "--sample", float, default.sample, "thin out words more frequent than this")
    option(parser, "--lr", float, default.lr, "first step size; it falls to a fifth of it")
    option(parser, "--seed", int, default.seed, "everything drawn follows from it")
    option(parser, "--threads", int, len(os.sched_getaffinity(0)), "threads to use")
    option(parser, "--commit-every", float, 60.0, "seconds between commits")
    parser.set_defaults(run=run)


def option(
    parser: argparse.ArgumentParser, name: str, kind: Callable[[str], Any], default: Any, what: str
) -> None:
    """Add an option that shows its default."""
    parser.add_argument(name, type=kind, default=default, metavar="N", help=f"{what} [{default}]")


def run(arguments: argparse.Namespace) -> int:
    """Read, count, train; prints what was made."""
    check_threads(arguments.threads)
    if not arguments.commit_every >= 0:
        raise ValueError(f"--commit-every must be at least 0, got {arguments.commit_every}")
    settings = Settings(
        **{
            field.name: getattr(arguments, field.name)
            for field in dataclasses.fields(Settings)
            if hasattr(arguments, field.name)
        }
    )
    out = Path(arguments.out) if arguments.resume else free_place(arguments.out, arguments.force)
    if arguments.resume:
        if arguments.force:
            raise ValueError("--resume goes on with the table that --force would replace")
        settings = settings_to_go_on_with(out, settings)
    tables = ["*.mmembed", *([out.name] if out.exists() else [])]
    corpus = read_corpus(
        arguments.text, settings,
        lines=arguments.lines, pattern=arguments.files, exclude=[*arguments.exclude, *tables],
    )  # fmt: skip
    return train_to(
        out, corpus, settings,
        threads=arguments.threads, commit_every=arguments.commit_every, resume=arguments.resume,
    )  # fmt: skip


def settings_to_go_on_with(out: Path, given: Settings) -> Settings:
    """Return the settings of a table's training; those given must be the same, or the default.

    Raises
    ------
    ValueError   one that was given differs.
    CorpusError  the table has no training; see `recorded_settings`.
    """
    with Table.open(out) as table:
        recorded = recorded_settings(table)
    for name, value in dataclasses.asdict(given).items():
        default, there = getattr(Settings(), name), getattr(recorded, name)
        if value not in (default, there):
            option = name.replace("_", "-")
            raise ValueError(
                f"the training of {out} was begun with --{option} {there}, not {value}"
            )
    return recorded


def check_threads(threads: int) -> None:
    """Raise ValueError unless there can be so many threads."""
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"--threads must be in 1..{MAX_THREADS}, got {threads}")


def free_place(path: str, force: bool) -> Path:
    """Return where a table may be made: `path`, or what it is a link to.

    Raises
    ------
    TableExistsError   something is there, unless it is a table and `force` may replace it.
    FileNotFoundError  the folder is missing.
    """
    out = Path(path)
    if not os.path.lexists(out):
        if not out.absolute().parent.is_dir():
            raise FileNotFoundError(f"there is no folder {out.absolute().parent} to make {out} in")
        return out
    if not force:
        raise TableExistsError(f"{out} exists already; choose another --out, or --force")
    if not looks_like_table(out):
        raise TableExistsError(f"{out} is not a table, so --force does not replace it")
    return out.resolve() if out.is_symlink() else out


def read_corpus(
    source: str,
    settings: Settings,
    *,
    lines: bool = False,
    pattern: str = "*",
    exclude: Collection[str] = (),
) -> Corpus:
    """Read text and number its words; prints how many there are. See `read_texts`."""
    begin = time.monotonic()
    size = _bytes_of(source, pattern, exclude)
    with progress("reading") as update:
        done = 0

        def on_bytes(n: int) -> None:
            nonlocal done
            if (done + n) >> 20 != done >> 20:
                update(done + n, size, f"{(done + n) / 1e6:.0f} MB")
            done += n

        texts = read_texts(source, lines=lines, pattern=pattern, exclude=exclude, on_bytes=on_bytes)
        corpus = Corpus.of(texts, settings.min_count)
    print(
        f"read {corpus.ids.size:,} words of {len(corpus.ends):,} texts in "
        f"{time.monotonic() - begin:.1f} s; {len(corpus.vocabulary):,} different ones occur at "
        f"least {settings.min_count} times"
    )
    return corpus


def _bytes_of(source: str, pattern: str, exclude: Collection[str]) -> int:
    path = Path(source)
    if source == "-" or not path.exists():
        return 0
    files = text_files(path, pattern, exclude) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def train_to(
    out: Path,
    corpus: Corpus,
    settings: Settings,
    *,
    threads: int,
    commit_every: float = 60.0,
    resume: bool = False,
) -> int:
    """Train into a table at `out`, taking the place of what is there once it is made.

    With `resume`, go on with the table that is there.
    """
    with _table(out, corpus, settings, resume) as table, _stop_on_interrupt() as stopped:
        with progress("training") as update, open(out / LOG, "a", encoding="ascii") as log:

            def on_progress(at: Progress) -> None:
                log.write(json.dumps(at._asdict()) + "\n")
                speed = at.words / max(at.seconds, 1e-9)
                update(at.words, at.total, f"loss {at.loss:.3f}  {speed / 1e3:,.0f}k words/s")

            finished = train(
                table, corpus, settings,
                threads=threads, commit_every=commit_every,
                on_progress=on_progress, should_stop=stopped,
            )  # fmt: skip
        last = json.loads((out / LOG).read_text().splitlines()[-1])
        print(
            f"{'trained' if finished else 'stopped after'} {last['words']:,} words in "
            f"{last['seconds']:.1f} s ({last['words'] / last['seconds'] / 1e3:,.0f}k words/s), "
            f"loss {last['loss']:.3f}; committed as step {table.step}"
        )
        print(f"{out}: {table.rows:,} vectors of {table.dim} {table.dtype}")
    if not finished:
        print(
            "mmembed: interrupted; what was trained is committed, and --resume goes on",
            file=sys.stderr,
        )
    return 0 if finished else 1


@contextlib.contextmanager
def _table(out: Path, corpus: Corpus, settings: Settings, resume: bool) -> Iterator[Table]:
    """Make the table for a block that trains it, or open the one that is there."""
    if not resume:
        with _place(out), create_table(out, corpus, settings) as table:
            yield table
        return
    with Table.open(out, "r+") as table:
        _cut_log(out / LOG, table.metadata.get("words", 0))
        yield table


def _cut_log(log: Path, words: int) -> None:
    """Take from a log what was reported after the last commit, and a line that is cut short."""
    if not log.exists():
        return
    lines = log.read_text("ascii", "replace").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    kept = [line for line in whole if json.loads(line)["words"] <= words]
    log.write_text("".join(kept), "ascii")


@contextlib.contextmanager
def _place(out: Path) -> Iterator[None]:
    """Free the name `out` for a block that makes a table there; if it fails, put back what was."""
    if not os.path.lexists(out):
        yield
        return
    aside = out.with_name(f"{out.name}.old-{os.urandom(4).hex()}")
    out.rename(aside)
    try:
        yield
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        aside.rename(out)
        raise
    shutil.rmtree(aside)


@contextlib.contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C end the work between two steps; gives what to ask."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: stopped
    finally:
        signal.signal(signal.SIGINT, before)
