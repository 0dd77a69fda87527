"""`Vocabulary`: word → id and back, with counts, in three memory-mapped files.

    keys         the words in UTF-8, back to back, in the order of their ids
    offsets.npy  int64 (n + 1,): word i is keys[offsets[i]:offsets[i + 1]]
    counts.npy   int64 (n,): how often each word was seen

Must not know tables or where a vocabulary belongs: it is given a directory.
"""

from __future__ import annotations

import codecs
import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import CorruptTableError, VocabularyError

IntArray = npt.NDArray[np.int64]

_BLOCK = 1 << 24  # bytes of words looked at at a time


class Vocabulary:
    """Distinct words, numbered from 0.

    Parameters
    ----------
    words : in the order of their ids.
    counts : how often each was seen; zeros by default.

    Raises
    ------
    ValueError  a word occurs twice, or there are not as many counts as words.

    >>> vocabulary = Vocabulary(["the", "cat"], [7, 2])
    >>> vocabulary["cat"], vocabulary.word(0), "dog" in vocabulary
    (1, 'the', False)
    """

    def __init__(self, words: Sequence[str], counts: npt.ArrayLike | None = None) -> None:
        encoded = [word.encode() for word in words]
        self._keys: npt.NDArray[np.uint8] = np.frombuffer(b"".join(encoded), np.uint8)
        self._offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self.counts: IntArray = np.asarray(
            np.zeros(len(encoded)) if counts is None else counts, np.int64
        )
        self._ids: dict[str, int] | None = {word: index for index, word in enumerate(words)}
        if self.counts.shape != (len(encoded),):
            raise ValueError(f"{len(encoded)} words and counts of shape {self.counts.shape}")
        if len(self._ids) != len(encoded):
            raise ValueError("the same word occurs twice in a vocabulary")

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> Vocabulary:
        """Map the vocabulary in `directory`.

        Raises
        ------
        FileNotFoundError  there is none.
        CorruptTableError  its files do not belong together, or are damaged. That a word is there
            twice shows when a word is first looked up, which raises it too.
        """
        directory = Path(directory)
        vocabulary = cls.__new__(cls)
        offsets = vocabulary._offsets = _map_numbers(directory / "offsets.npy")
        counts = vocabulary.counts = _map_numbers(directory / "counts.npy")
        size = (directory / "keys").stat().st_size
        keys = vocabulary._keys = (
            np.memmap(directory / "keys", np.uint8, "r") if size else np.empty(0, np.uint8)
        )
        if (
            counts.ndim != 1
            or offsets.shape != (counts.size + 1,)
            or offsets[0] != 0
            or offsets[-1] != size
            or (offsets[1:] < offsets[:-1]).any()
        ):
            raise CorruptTableError(f"{directory}: its words, offsets and counts disagree")
        if not _is_text(keys, offsets):
            raise CorruptTableError(f"{directory}: its words are not UTF-8")
        vocabulary._ids = None
        return vocabulary

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write the three files into a new directory; it appears whole or not at all.

        Raises
        ------
        FileExistsError  there is something at `directory`.
        """
        directory = Path(directory)
        draft = directory.with_name(f"{directory.name}.tmp-{os.getpid()}")
        if os.path.lexists(directory):
            raise FileExistsError(f"{directory} exists already")
        draft.mkdir(mode=0o700)
        try:
            (draft / "keys").write_bytes(self._keys.tobytes())
            np.save(draft / "offsets.npy", self._offsets, allow_pickle=False)
            np.save(draft / "counts.npy", self.counts, allow_pickle=False)
            for name in ("keys", "offsets.npy", "counts.npy"):
                _sync(draft / name)
            draft.rename(directory)
            _sync(directory.parent)
        except BaseException:
            for file in draft.glob("*"):
                file.unlink()
            if draft.exists():
                draft.rmdir()
            raise

    def __len__(self) -> int:
        return len(self.counts)

    def __iter__(self) -> Iterator[str]:
        return (self.word(i) for i in range(len(self)))

    def __contains__(self, word: object) -> bool:
        return word in self._index()

    def __getitem__(self, word: str) -> int:
        """Return the id of a word; VocabularyError names words like it if there is none."""
        try:
            return self._index()[word]
        except KeyError:
            like = difflib.get_close_matches(word, self._index(), n=3)
            hint = f"; did you mean {', '.join(map(repr, like))}?" if like else ""
            raise VocabularyError(
                f"{word!r} is not among the {len(self)} words of the vocabulary{hint}"
            ) from None

    def word(self, index: int) -> str:
        """Return the word with an id."""
        if not 0 <= index < len(self):
            raise IndexError(f"no word {index}; there are {len(self)} (valid: 0..{len(self) - 1})")
        start, stop = self._offsets[index : index + 2]
        return self._keys[start:stop].tobytes().decode()

    def ids(self, words: Iterable[str]) -> IntArray:
        """Return the ids of words, (n,); -1 for those there are not."""
        index = self._index()
        return np.array([index.get(word, -1) for word in words], np.int64)

    def _index(self) -> dict[str, int]:
        if self._ids is None:
            ids = {word: index for index, word in enumerate(self)}
            if len(ids) != len(self):
                raise CorruptTableError(
                    f"of the {len(self)} words of the vocabulary only {len(ids)} are different"
                )
            self._ids = ids
        return self._ids


def _map_numbers(path: Path) -> IntArray:
    """Map a file of int64; CorruptTableError if it is none, whatever else it is."""
    try:
        numbers = np.lib.format.open_memmap(path, "r")
        if numbers.dtype != np.int64:
            raise ValueError(f"{path.name} holds {numbers.dtype}, not int64")
    except OSError:
        raise
    except Exception as error:  # NumPy's reader of headers raises what Python's parser does
        message = str(error) or type(error).__name__
        raise CorruptTableError(f"{path.parent}: not a vocabulary: {message}") from None
    return numbers


def _is_text(keys: npt.NDArray[np.uint8], offsets: IntArray) -> bool:
    """Whether keys are UTF-8 and every word begins and ends between two characters."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, keys.size, _BLOCK):
            decoder.decode(keys[start : start + _BLOCK].tobytes())
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    begins = np.asarray(offsets[offsets < keys.size])
    return not ((keys[begins] & 0xC0) == 0x80).any()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
