"""The tests are tested: each of these mistakes in making batches or losses must be caught."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from mmembed.training import Settings, batches, skipgram

from . import formula, oracle

COUNTS = np.full(200, 5)
TEXTS = [[3, 1, 2], [], [4], [5, -1, 6, 7, 8], list(range(9, 40)), [-1], [40, 41]]
SETTINGS = Settings(window=3, block=4, blocks=3, noise=2, sample=0, epochs=2)


def all_kept(module):
    oracle.check_texts(module, TEXTS, SETTINGS, COUNTS)


def thinned(module):
    settings = Settings(window=3, block=4, blocks=3, noise=2, sample=2e-3, epochs=4)
    oracle.check_texts(module, TEXTS, settings, COUNTS)


def in_spans(module):
    module.SPAN = 4
    oracle.check_texts(module, TEXTS, SETTINGS, COUNTS)


def widest(module):
    settings = Settings(window=60, block=60, blocks=1, noise=1, sample=0, epochs=1)
    oracle.check_texts(module, [list(range(1, 190))], settings, COUNTS)


def neighboring(module):
    texts = [[0, 1, 1, 0, -1, 2], [2], [], [1, 0]]
    settings = Settings(window=1, block=4, blocks=2, noise=2, sample=0)
    oracle.check_neighboring_pairs(module, texts, settings, [1, 2, 3])


MISTAKES = [
    # (check, right, wrong)
    (neighboring, "& (offset != 0)", ""),
    (all_kept, "& (offset != 0)", ""),
    (all_kept, "(offset >= -left[..., None])", "(offset > -left[..., None])"),
    (all_kept, "(offset <= right[..., None])", "(offset <= left[..., None])"),
    (all_kept, "- s.window - np.arange", "- s.window + np.arange"),
    (neighboring, "- s.window - np.arange", "- s.window + np.arange"),
    (widest, ".astype(np.int8)\n        weights", ".astype(np.uint8)\n        weights"),
    (all_kept, "padded[s.window : s.window + ids.size]", "padded[: ids.size]"),
    (all_kept, "around[:: s.block]", "around[:: s.block][::-1]"),
    (all_kept, "slice(number, None, batches)", "slice(number, None, batches + 1)"),
    (all_kept, "slice(number, None, batches)", "slice(0, None, batches)"),
    (all_kept, "left[blocks], right[blocks])", "left[blocks], left[blocks])"),
    (all_kept, "weights[..., width:] = (reach *", "weights[..., width:] = (1 *"),
    (all_kept, "s.negatives / s.noise", "s.negatives"),
    (all_kept, "s.negatives / s.noise", "s.negatives * 1.0005 / s.noise"),
    (all_kept, "weights[..., :width] = pair", "weights[..., :width] = pair * 0.9995"),
    (all_kept, "int(reach.sum(dtype=np.int64))", "int(weights.sum(dtype=np.int64))"),
    (all_kept, "int(reach.sum(dtype=np.int64))", "words.size"),
    (all_kept, "s.window : s.window + s.block]", "s.window + 1 : s.window + s.block + 1]"),
    (all_kept, "np.minimum(drawn, place - np.append(0, bounds)[text])", "drawn"),
    (neighboring, "np.append(bounds, n)[text] - 1 - place", "np.append(bounds, n)[text] - place"),
    (all_kept, "np.flatnonzero(np.diff(texts)) + 1", "np.flatnonzero(np.diff(texts))"),
    (all_kept, "rng.integers(1, window + 1, n)", "rng.integers(0, window + 1, n)"),
    (all_kept, "rng.integers(1, window + 1, n)", "rng.integers(1, window + 2, n)"),
    (oracle.check_windows, "rng.integers(1, window + 1, n)", "np.full(n, window)"),
    (oracle.check_windows, "rng.integers(1, window + 1, n)", "rng.integers(1, window, n)"),
    (all_kept, "right = np.minimum(drawn", "right = np.minimum(drawn[::-1]"),
    (all_kept, "kept = ids >= 0", "kept = ids >= -1"),
    (all_kept, "kept = ids >= 0", "kept = ids > 1"),
    (neighboring, "kept = ids >= 0", "kept = ids > 0"),
    (thinned, "ids, texts = ids[kept], texts[kept]", "ids = ids[kept]; texts = texts[: ids.size]"),
    (oracle.check_thinning, "np.sqrt(rare) + rare", "np.sqrt(rare)"),
    (oracle.check_thinning, "np.sqrt(rare) + rare", "rare"),
    (oracle.check_thinning, "frequency / frequency.sum()", "frequency / frequency.max()"),
    (oracle.check_thinning, "< self._kept[ids[kept]]", "> self._kept[ids[kept]]"),
    (oracle.check_noise, "frequency**0.75", "frequency"),
    (oracle.check_noise, "frequency**0.75", "frequency**0.7"),
    (oracle.check_noise, "np.searchsorted(self._noise, rng", "self._noise.size - 1 - np.searchsorted(self._noise, rng"),  # noqa: E501
    (in_spans, "ends = self._ends[first_text:last_text] - start", "ends = self._ends[first_text:last_text]"),  # noqa: E501
    (in_spans, "text, start = after, stop", "text, start = after + 1, stop"),
    (in_spans, "self._ids[start:stop]", "self._ids[start : stop - 1]"),
    (in_spans, "int(self._ends[after - 1])", "int(self._ends[after - 1]) - 1"),
    (in_spans, "max(after, text + 1)", "max(after, text + 2)"),
    (in_spans, "before + start +", "before +"),
    (all_kept, "number * self._ids.size", "0"),
    (all_kept, "share * (stop - start)", "share * 2 * (stop - start)"),
]  # fmt: skip

WRONG_LOSSES = [
    ("weight=batch.weights, ", ""),
    ("weight=batch.weights", "weight=batch.weights * 1.0005"),
    ('reduction="sum"', 'reduction="mean"'),
    ("scores, targets", "scores, 1 - targets"),
    ("scores, targets", "-scores, targets"),
    ("self.contexts(batch.others)", "self.words(batch.others)"),
    ("self.words(batch.words)", "self.words(batch.others[:, : batch.words.shape[1]])"),
    ('column="context", sparse', "sparse"),
    ("self.words(batch.words) @", "self.words(batch.words).detach() @"),
]


def changed(module, right="", wrong=""):
    """Return a copy of a module in whose source `wrong` stands for `right`."""
    source = Path(module.__file__).read_text()
    assert right in source
    copy = types.ModuleType(module.__name__)
    copy.__package__ = module.__package__
    exec(compile(source.replace(right, wrong), "<mutant>", "exec"), copy.__dict__)
    return copy


@pytest.mark.parametrize(
    ("check", "right", "wrong"), MISTAKES, ids=[f"{c.__name__}: {w}" for c, _, w in MISTAKES]
)
def test_a_mistake_in_making_batches_is_caught(check, right, wrong):
    with pytest.raises((AssertionError, IndexError, ValueError)):
        check(changed(batches, right, wrong))


@pytest.mark.parametrize("check", dict.fromkeys(check for check, _, _ in MISTAKES))
def test_without_a_mistake_the_checks_pass(check):
    check(changed(batches))


@pytest.mark.parametrize(("right", "wrong"), WRONG_LOSSES, ids=[wrong for _, wrong in WRONG_LOSSES])
def test_a_mistake_in_the_loss_is_caught(right, wrong):
    with pytest.raises((AssertionError, AttributeError)):
        formula.check_loss(changed(skipgram, right, wrong))


def test_without_a_mistake_the_loss_passes():
    formula.check_loss(changed(skipgram))
    assert sys.modules["mmembed.training.skipgram"] is skipgram
