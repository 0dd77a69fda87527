"""Text → word ids: reading files, splitting them into words, counting, numbering.

Must not know tables, models or the command line.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import itertools
import os
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from ..errors import CorpusError
from ..vocab import Vocabulary

_LETTER = r"[^\W\d_]"
_ASCII_WORD = re.compile(rf"{_LETTER}+", re.ASCII)
_PROBE = 1 << 16  # bytes looked at to tell text from binary data


@dataclass(frozen=True)
class Corpus:
    """Texts as word ids.

    Attributes
    ----------
    ids : (tokens,) int32, the texts one after another; -1 for words not in the vocabulary.
    ends : (texts,) int64, where each text ends in `ids`.
    vocabulary : the words, most frequent first.
    """

    ids: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]
    vocabulary: Vocabulary

    @classmethod
    def of(cls, texts: Iterable[Iterable[str]], min_count: int = 5) -> Corpus:
        """Number the words of `texts` that occur at least `min_count` times.

        Parameters
        ----------
        texts : each a sequence of words; read once.

        Raises
        ------
        CorpusError  no word occurs that often.
        """
        number: defaultdict[str, int] = defaultdict()
        number.default_factory = number.__len__
        chunks = [np.empty(0, np.int32)]
        sizes: list[int] = []
        for some in _batches(texts, 10_000):
            numbered = [[number[word] for word in text] for text in some]
            sizes += map(len, numbered)
            chunks.append(np.fromiter(itertools.chain.from_iterable(numbered), np.int32))
        met = np.concatenate(chunks)
        counts = np.bincount(met, minlength=len(number))
        # Most frequent first; words equally frequent in the order in which they came.
        order = np.argsort(-counts, kind="stable")
        kept = order[counts[order] >= min_count]
        if kept.size == 0:
            raise CorpusError(
                f"no word occurs at least {min_count} times in {met.size} words of text; "
                "give more text or a lower min-count"
            )
        ids = np.full(len(number), -1, np.int32)
        ids[kept] = np.arange(kept.size, dtype=np.int32)
        words = list(number)
        vocabulary = Vocabulary([words[i] for i in kept], counts[kept])
        return cls(ids[met], np.cumsum(sizes, dtype=np.int64), vocabulary)


def read_texts(
    source: str | os.PathLike[str],
    *,
    lines: bool = False,
    pattern: str = "*",
    exclude: Collection[str] = (),
    on_bytes: Callable[[int], None] = lambda n: None,
) -> Iterator[list[str]]:
    """Yield the texts of a file, a folder or standard input as lists of lower-case words.

    Parameters
    ----------
    source : path of a text file, or of a folder whose files (all below it, in the order of their
        paths) are read, or "-" for standard input. Text is UTF-8.
    lines : every line is a text; otherwise texts are separated by blank lines.
    pattern : which files of a folder to read, by name. Files that are not text are passed over; one
        that turns out not to be text further on is left there.
    exclude : patterns of names of files, and of folders with all that is in them, that are passed
        over.
    on_bytes : told how many bytes have been read since it was last called.

    Raises
    ------
    CorpusError        the file is not text, or the folder has no text file.
    FileNotFoundError  there is nothing at `source`.
    """
    if os.fspath(source) == "-":
        yield from _texts_of(sys.stdin.buffer, "standard input", lines, on_bytes)
        return
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if not path.is_dir():
        with path.open("rb") as file:
            yield from _texts_of(file, str(path), lines, on_bytes)
        return
    found = False
    for file_path in text_files(path, pattern, exclude):
        found = True
        with file_path.open("rb") as file, contextlib.suppress(CorpusError):
            yield from _texts_of(file, str(file_path), lines, on_bytes)
    if not found:
        raise CorpusError(f"no text file named {pattern!r} in {path}")


def text_files(folder: Path, pattern: str = "*", exclude: Collection[str] = ()) -> Iterator[Path]:
    """Yield the regular files below a folder that look like text, in the order of their paths.

    `pattern` and `exclude` are as for `read_texts`.
    """
    for path in sorted(folder.iterdir()):
        if any(fnmatch.fnmatchcase(path.name, name) for name in exclude):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from text_files(path, pattern, exclude)
        elif path.is_file() and fnmatch.fnmatchcase(path.name, pattern):
            with path.open("rb") as file:
                if b"\0" not in file.read(_PROBE):
                    yield path


def words_of(text: str) -> list[str]:
    """Return the words of a text: runs of letters and the marks on them, in lower case."""
    word = _ASCII_WORD if text.isascii() else _any_word()
    return word.findall(text.lower())


@functools.cache
def _any_word() -> re.Pattern[str]:
    # Python's \w has no combining marks: without them most words of Hindi or Thai fall apart.
    # Unicode has marks in these two ranges only.
    marks = "".join(
        mark
        for mark in map(chr, (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)))
        if unicodedata.category(mark).startswith("M")
    )
    return re.compile(rf"{_LETTER}(?:{_LETTER}|[{marks}])*")


def _texts_of(
    file: IO[bytes], name: str, lines: bool, on_bytes: Callable[[int], None]
) -> Iterator[list[str]]:
    text: list[str] = []
    for number, line in enumerate(file, 1):
        on_bytes(len(line))
        if b"\0" in line:
            raise CorpusError(f"{name} is not text: it has a zero byte in line {number}")
        words = words_of(line.decode(errors="replace"))
        if lines:
            if words:
                yield words
        elif line.strip():
            text += words
        elif text:
            yield text
            text = []
    if text:
        yield text


def _batches(texts: Iterable[Iterable[str]], size: int) -> Iterator[list[Iterable[str]]]:
    iterator = iter(texts)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
