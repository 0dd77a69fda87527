"""`Vocabulary`: word → id and back, with counts, in three memory-mapped files.

    keys         the words in UTF-8, back to back, in the order of their ids
    offsets.npy  int64 (n + 1,): word i is keys[offsets[i]:offsets[i + 1]]
    counts.npy   int64 (n,): how often each word was seen

Must not know tables or where a vocabulary belongs: it is given a directory.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import CorruptTableError, VocabularyError

IntArray = npt.NDArray[np.int64]


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
        self._ids: dict[str, int] | None = None
        if self.counts.shape != (len(encoded),):
            raise ValueError(f"{len(encoded)} words and counts of shape {self.counts.shape}")
        if len(self._index()) != len(encoded):
            raise ValueError("the same word occurs twice in a vocabulary")

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> Vocabulary:
        """Map the vocabulary in `directory`.

        Raises
        ------
        FileNotFoundError  there is none.
        CorruptTableError  its files do not belong together.
        """
        directory = Path(directory)
        vocabulary = cls.__new__(cls)
        try:
            vocabulary._offsets = np.load(directory / "offsets.npy", "r", allow_pickle=False)
            vocabulary.counts = np.load(directory / "counts.npy", "r", allow_pickle=False)
            size = (directory / "keys").stat().st_size
            vocabulary._keys = (
                np.memmap(directory / "keys", np.uint8, "r") if size else np.empty(0, np.uint8)
            )
        except ValueError as error:
            raise CorruptTableError(f"{directory}: not a vocabulary: {error}") from None
        offsets, counts = vocabulary._offsets, vocabulary.counts
        if (
            offsets.dtype != np.int64
            or counts.dtype != np.int64
            or offsets.shape != (counts.size + 1,)
            or offsets[0] != 0
            or offsets[-1] != size
            or (np.diff(offsets) < 0).any()
        ):
            raise CorruptTableError(f"{directory}: its words, offsets and counts disagree")
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
            self._ids = {word: index for index, word in enumerate(self)}
        return self._ids


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
