"""Word ids → batches of skip-gram with negative sampling.

A batch is made of blocks of consecutive words. The words of a block share the text around the block
as their contexts, and the noise words drawn for the block, so that all scores of a block are one
product of two small matrices; weights say which of them count, and how much.

Must not know models, tables or text.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from .settings import Settings

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
T = TypeVar("T")

# Words taken at a time: what is worked out for each of them (its text's bounds, its window) stays
# small beside any corpus.
SPAN = 1 << 24


class Batch(NamedTuple):
    """n blocks of b words each.

    Attributes
    ----------
    words : (n, b) ids.
    others : (n, b + 2 * window + noise) ids: the text around each block, then noise words.
    weights : (n, b, b + 2 * window + noise): of word i and other j; 0 for what is no pair.
    pairs : number of (word, context) pairs.
    seen : number of words gone through before, over all epochs, those left out included.
    place : (epoch, number of the batch in it), from 0.
    """

    words: Ids
    others: Ids
    weights: Floats
    pairs: int
    seen: int
    place: tuple[int, int] = (0, 0)


class Sampler:
    """Draws batches from a corpus; every epoch draws anew, all from the seed.

    Parameters
    ----------
    ids : (tokens,) the corpus; -1 for words that are left out.
    ends : (texts,) where each text ends in `ids`.
    counts : (words,) how often each word occurs.
    """

    def __init__(
        self, ids: Ids, ends: npt.NDArray[np.int64], counts: npt.ArrayLike, settings: Settings
    ) -> None:
        self._ids = ids
        self._ends = ends
        self._settings = settings
        frequency = np.asarray(counts, np.float64)
        frequency = frequency / frequency.sum()
        rare = settings.sample / frequency if settings.sample > 0 else np.full(frequency.size, 1.0)
        self._kept = np.minimum(np.sqrt(rare) + rare, 1.0).astype(np.float32)
        noise = np.cumsum(frequency**0.75)
        self._noise = noise / noise[-1]
        # targets[j] is 1 for the text around a block and 0 for noise
        around = settings.block + 2 * settings.window
        self.targets = np.repeat(np.array([1, 0], np.float32), [around, settings.noise])

    def batches(self, *, ahead: bool = False, start: tuple[int, int] = (0, 0)) -> Iterator[Batch]:
        """Yield the batches of all epochs.

        Parameters
        ----------
        ahead : make each batch in another thread, while the one before it is used.
        start : the place of the first batch; those before it in its epoch are drawn all the same.
        """
        epochs = range(start[0], self._settings.epochs)
        drawn = (batch for number in epochs for batch in self._epoch(number))
        batches = itertools.dropwhile(lambda batch: batch.place < start, drawn)
        return _ahead(batches) if ahead else batches

    def _epoch(self, number: int) -> Iterator[Batch]:
        rng = np.random.default_rng([self._settings.seed, number])
        before = number * self._ids.size
        places = itertools.count()
        for start, stop, first_text, last_text in self._spans():
            ends = self._ends[first_text:last_text] - start
            for share, batch in self._span(rng, self._ids[start:stop], ends):
                seen = int(before + start + share * (stop - start))
                yield batch._replace(seen=seen, place=(number, next(places)))

    def _spans(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield (first word, last word, first text, last text) of parts made of whole texts."""
        text, start = 0, 0
        while text < self._ends.size:
            after = int(np.searchsorted(self._ends, start + SPAN, side="right"))
            after = max(after, text + 1)
            stop = int(self._ends[after - 1])
            yield start, stop, text, after
            text, start = after, stop

    def _span(
        self, rng: np.random.Generator, ids: Ids, ends: npt.NDArray[np.int64]
    ) -> Iterator[tuple[float, Batch]]:
        """Yield (share of this span gone through before, batch)."""
        s = self._settings
        texts = np.repeat(np.arange(ends.size), np.diff(ends, prepend=0))
        kept = ids >= 0
        kept[kept] = rng.random(np.count_nonzero(kept), np.float32) < self._kept[ids[kept]]
        ids, texts = ids[kept], texts[kept]
        if ids.size == 0:
            return
        left, right = _reach(rng, texts, s.window)
        size = s.block * s.blocks
        batches = -(-ids.size // size)
        padded = np.zeros(batches * size + 2 * s.window, np.int32)
        padded[s.window : s.window + ids.size] = ids
        left, right = (np.pad(reach, (0, batches * size - ids.size)) for reach in (left, right))
        around = np.lib.stride_tricks.sliding_window_view(padded, s.block + 2 * s.window)
        around = around[:: s.block]
        left, right = left.reshape(-1, s.block), right.reshape(-1, s.block)
        for number in range(batches):
            # Every batches-th block: a batch has words from all over the span, so that one topic
            # or one letter of a dictionary does not fill it.
            blocks = slice(number, None, batches)
            batch = self._batch(rng, around[blocks], left[blocks], right[blocks])
            yield number / batches, batch

    def _batch(
        self,
        rng: np.random.Generator,
        around: Ids,
        left: npt.NDArray[np.int8],
        right: npt.NDArray[np.int8],
    ) -> Batch:
        s = self._settings
        n, width = around.shape
        others = np.empty((n, width + s.noise), np.int32)
        others[:, :width] = around
        others[:, width:] = np.searchsorted(self._noise, rng.random((n, s.noise)))
        offset = (np.arange(width) - s.window - np.arange(s.block)[:, None]).astype(np.int8)
        weights = np.empty((n, s.block, width + s.noise), np.float32)
        pair = (offset >= -left[..., None]) & (offset <= right[..., None]) & (offset != 0)
        weights[..., :width] = pair
        reach = left + right
        weights[..., width:] = (reach * np.float32(s.negatives / s.noise))[..., None]
        words = others[:, s.window : s.window + s.block]
        return Batch(words, others, weights, int(reach.sum(dtype=np.int64)), 0)


def _reach(
    rng: np.random.Generator, texts: npt.NDArray[np.int64], window: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Return how many words to the left and right of each are its contexts, within its text."""
    n = texts.size
    bounds = np.flatnonzero(np.diff(texts)) + 1
    text = np.repeat(np.arange(bounds.size + 1), np.diff(bounds, prepend=0, append=n))
    place = np.arange(n)
    drawn = rng.integers(1, window + 1, n)
    left = np.minimum(drawn, place - np.append(0, bounds)[text])
    right = np.minimum(drawn, np.append(bounds, n)[text] - 1 - place)
    return left.astype(np.int8), right.astype(np.int8)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield from `items`, taking the next one in another thread meanwhile."""
    done = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, done)
        while (item := coming.result()) is not done:
            coming = thread.submit(next, items, done)
            yield item  # type: ignore[misc]
