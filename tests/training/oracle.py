"""What batches must be, in plain Python: every check takes the module that makes them.

`check_texts` uses a corpus in which every word is another one, so that each entry of a batch says
which place of the text it stands for.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import numpy as np

from mmembed.training import Settings


def sampler(module, texts, settings, counts):
    """Return the sampler of texts that are lists of ids."""
    ids = np.array([i for text in texts for i in text], np.int32)
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return module.Sampler(ids, ends, counts, settings)


def all_batches(module, texts, settings, counts):
    """Return the batches of every epoch, in one list for each."""
    tokens = sum(map(len, texts))
    epochs = [[] for _ in range(settings.epochs)]
    last = 0
    for batch in sampler(module, texts, settings, counts).batches():
        assert type(batch.seen) is int
        assert last <= batch.seen < tokens * settings.epochs
        last = batch.seen
        epochs[batch.seen // tokens].append(batch)
    return epochs


def check_shapes(batch, settings, words):
    """Shapes, types, the range of ids, and the weights that follow from others."""
    s = settings
    around = s.block + 2 * s.window
    assert batch.words.shape == (s.blocks, s.block)
    assert batch.others.shape == (s.blocks, around + s.noise)
    assert batch.weights.shape == (s.blocks, s.block, around + s.noise)
    assert (batch.words.dtype, batch.others.dtype) == (np.int32, np.int32)
    assert batch.weights.dtype == np.float32
    assert 0 <= batch.others.min() <= batch.others.max() < words
    np.testing.assert_array_equal(batch.words, batch.others[:, s.window : s.window + s.block])
    text, noise = batch.weights[..., :around], batch.weights[..., around:]
    assert set(np.unique(text)) <= {0, 1}
    assert type(batch.pairs) is int
    assert batch.pairs == np.count_nonzero(text)
    want = text.sum(axis=-1, keepdims=True) * (s.negatives / s.noise)
    np.testing.assert_allclose(noise, np.broadcast_to(want, noise.shape), rtol=1e-6)


def pairs_of(batch, settings):
    """Yield (block, word's place in it, ids of the contexts) of every word of a batch."""
    around = settings.block + 2 * settings.window
    for n, weights in enumerate(batch.weights[..., :around].tolist()):
        others = batch.others[n].tolist()
        for i, row in enumerate(weights):
            yield n, i, [others[j] for j, weight in enumerate(row) if weight]


def spans_of(texts, size):
    """Return the texts in groups of at most `size` words, or of one text."""
    groups, words = [[]], 0
    for text in texts:
        if groups[-1] and words + len(text) > size:
            groups.append([])
            words = 0
        groups[-1].append(text)
        words += len(text)
    return groups


def check_texts(module, texts, settings, counts):
    """Check all batches of texts whose ids, from 1, are all different; -1 stands for no word."""
    epochs = all_batches(module, texts, settings, counts)
    known = {i for text in texts for i in text if i > 0}
    for batches in epochs:
        kept = Counter(i for batch in batches for i in batch.words.flat if i > 0)
        assert set(kept.values()) <= {1}
        assert kept.keys() <= known
        if settings.sample == 0:
            assert kept.keys() == known
        spans = [
            [[i for i in text if i in kept] for text in span]
            for span in spans_of(texts, module.SPAN)
        ]
        for batch in batches:
            check_shapes(batch, settings, len(counts))
            _check_blocks(batch, settings, spans)
            _check_pairs(batch, settings, spans)


def _check_blocks(batch, settings, spans):
    """The words around a block are those around it in its span, and 0 where there are none."""
    streams = [[i for text in span for i in text] for span in spans]
    place = {i: (stream, at) for stream in streams for at, i in enumerate(stream)}
    reach = range(-settings.window, settings.block + settings.window)
    for n, (first, *_) in enumerate(batch.words.tolist()):
        if first > 0:  # else there is no word in this block
            stream, at = place[first]
            want = [stream[at + d] if 0 <= at + d < len(stream) else 0 for d in reach]
            assert batch.others[n, : len(reach)].tolist() == want
        else:
            assert not batch.words[n].any()


def _check_pairs(batch, settings, spans):
    """A word's contexts are those within one of its windows, in its text; never it itself."""
    place = {i: (text, at) for span in spans for text in span for at, i in enumerate(text)}
    for n, i, contexts in pairs_of(batch, settings):
        word = int(batch.words[n, i])
        if word == 0:
            assert not batch.weights[n, i].any()
            continue
        text, at = place[word]
        windows = [
            text[max(0, at - r) : at] + text[at + 1 : at + 1 + r]
            for r in range(1, settings.window + 1)
        ]
        assert contexts in windows


def check_neighboring_pairs(module, texts, settings, counts):
    """With a window of 1 and no word left out, the pairs are those of neighbors in the texts."""
    assert (settings.window, settings.sample) == (1, 0)
    want = Counter()
    for text in texts:
        kept = [i for i in text if i >= 0]
        for one, other in itertools.pairwise(kept):
            want[one, other] += 1
            want[other, one] += 1

    for batches in all_batches(module, texts, settings, counts):
        found = Counter()
        for batch in batches:
            check_shapes(batch, settings, len(counts))
            for n, i, contexts in pairs_of(batch, settings):
                found.update((int(batch.words[n, i]), context) for context in contexts)
        assert found == want


def check_windows(module):
    """Every size of a window is drawn as often as any other."""
    settings = Settings(window=4, block=16, blocks=8, noise=1, sample=0, epochs=1)
    texts = [[1 + i for i in range(20_000)]]
    drawn = Counter()
    (batches,) = all_batches(module, texts, settings, np.ones(20_001))
    for batch in batches:
        for n, i, contexts in pairs_of(batch, settings):
            if 10 < batch.words[n, i] < 19_990:
                drawn[len(contexts)] += 1
    assert drawn.keys() == {2, 4, 6, 8}
    check_chi_square(np.array(list(drawn.values())), np.full(4, 0.25))


def check_thinning(module):
    """Words are kept as often as word2vec's rule says: sqrt(s / f) + s / f, at most 1."""
    counts = np.array([100_000, 30_000, 10_000, 1_000, 100, 20])
    settings = Settings(sample=1e-3, block=60, blocks=8, noise=1, window=1, epochs=4, seed=5)
    text = np.random.default_rng(0).permutation(np.repeat(np.arange(6), counts))
    kept = defaultdict(int)
    sizes = np.concatenate([[0], np.cumsum(np.full(10, text.size // 10))])
    texts = [text[a:b].tolist() for a, b in itertools.pairwise(sizes)]
    total = np.bincount(np.concatenate(texts), minlength=6) * settings.epochs
    for batches in all_batches(module, texts, settings, counts):
        for batch in batches:
            real = batch.weights.any(axis=-1)
            for word, n in zip(*np.unique(batch.words[real], return_counts=True), strict=True):
                kept[int(word)] += int(n)
    share = 1e-3 / (counts / counts.sum())
    expected = np.minimum(np.sqrt(share) + share, 1)
    for word in range(6):
        deviation = np.sqrt(total[word] * expected[word] * (1 - expected[word]))
        assert abs(kept[word] - total[word] * expected[word]) <= 5 * deviation + 1e-9


def check_noise(module):
    """Noise words are drawn by their counts to the power of 3/4, whatever the text is."""
    counts = np.array([1000, 1, 300, 0, 90, 30, 10, 3])
    settings = Settings(block=2, blocks=500, noise=40, window=1, epochs=2, sample=0)
    drawn = np.zeros(8)
    for batches in all_batches(module, [[5, 3]] * 1000, settings, counts):
        for batch in batches:
            drawn += np.bincount(batch.others[:, 4:].ravel(), minlength=8)
    share = counts**0.75
    assert drawn[3] == 0
    check_chi_square(drawn[share > 0], share[share > 0] / share.sum())


def check_chi_square(counts, shares):
    """Fail where chance alone would once in very many runs (six deviations, about)."""
    expected = counts.sum() * shares
    freedom = counts.size - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < freedom + 6 * np.sqrt(2 * freedom) + 12
