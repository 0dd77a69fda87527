"""The corpus: counting words and numbering them, against counting in plain Python."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.errors import CorpusError
from mmembed.training import Corpus
from mmembed.training import corpus as module

TEXTS = st.lists(st.lists(st.sampled_from("abcdefg"), max_size=6), max_size=12)


def numbered(texts, min_count):
    """Words by frequency, those equally frequent as they come first, in plain Python."""
    counts = Counter(word for text in texts for word in text)  # keeps the order of first sight
    words = sorted(counts, key=lambda word: -counts[word])
    return [(word, counts[word]) for word in words if counts[word] >= min_count]


@given(texts=TEXTS, min_count=st.integers(1, 4), batch=st.integers(1, 5))
def test_a_corpus_is_what_counting_gives(texts, min_count, batch):
    want = numbered(texts, min_count)
    number = {word: i for i, (word, _) in enumerate(want)}
    with pytest.MonkeyPatch.context() as patch:
        batches = module._batches
        patch.setattr(module, "_batches", lambda texts, size: batches(texts, batch))
        if not want:
            with pytest.raises(CorpusError):
                Corpus.of(texts, min_count)
            return

        corpus = Corpus.of(texts, min_count)

    assert list(corpus.vocabulary) == [word for word, _ in want]
    assert corpus.vocabulary.counts.tolist() == [count for _, count in want]
    assert corpus.ids.tolist() == [number.get(word, -1) for text in texts for word in text]
    assert corpus.ends.tolist() == np.cumsum([len(text) for text in texts]).tolist()
    assert (corpus.ids.dtype, corpus.ends.dtype) == (np.int32, np.int64)


def test_texts_may_be_generators_and_are_read_once():
    texts = (iter(text.split()) for text in ["a b a", "b a"])

    corpus = Corpus.of(texts, 1)

    assert corpus.ids.tolist() == [0, 1, 0, 1, 0]
    assert list(texts) == []


def test_words_equally_frequent_stand_in_the_order_in_which_they_came():
    corpus = Corpus.of([["z", "m", "a"], ["b", "a", "z", "m", "b"]], 2)

    assert list(corpus.vocabulary) == ["z", "m", "a", "b"]


def test_words_that_are_too_rare_keep_their_place():
    corpus = Corpus.of([["a", "rare", "a"], ["seldom"], ["a"]], 2)

    assert corpus.ids.tolist() == [0, -1, 0, -1, 0]
    assert corpus.ends.tolist() == [3, 4, 5]
    assert list(corpus.vocabulary) == ["a"]


def test_five_is_the_least_count_by_default():
    corpus = Corpus.of([["often"] * 5 + ["seldom"] * 4])

    assert list(corpus.vocabulary) == ["often"]


@pytest.mark.parametrize(
    ("texts", "words"), [([], 0), ([[], []], 0), ([["a", "b"], ["c", "a", "d"]], 5)]
)
def test_text_of_which_nothing_is_left_is_refused(texts, words):
    with pytest.raises(CorpusError) as error:
        Corpus.of(texts, 3)

    assert str(error.value) == (
        f"no word occurs at least 3 times in {words} words of text; "
        "give more text or a lower min-count"
    )
