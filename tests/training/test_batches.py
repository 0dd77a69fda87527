"""Batches: true pairs and nothing else, against an oracle in plain Python."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.training import Settings, batches

from . import oracle

SHAPES = {
    "block": st.integers(1, 7),
    "blocks": st.integers(1, 4),
    "noise": st.integers(1, 3),
    "negatives": st.sampled_from([0.0, 0.5, 5.0]),
    "epochs": st.integers(1, 2),
    "seed": st.integers(0, 9),
}


@st.composite
def settings_of(draw, **fixed):
    """Settings of small batches."""
    drawn = {name: draw(kind) for name, kind in SHAPES.items()}
    return Settings(**{"window": draw(st.integers(1, 4)), **drawn, **fixed})


@st.composite
def distinct_texts(draw):
    """Texts whose words all differ, from 1, some of them left out; also texts without words."""
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any))
    out = draw(st.sets(st.integers(1, sum(sizes)), max_size=4))
    numbers = itertools.count(1)
    return [[-1 if i in out else i for i in itertools.islice(numbers, n)] for n in sizes]


@given(
    texts=distinct_texts(),
    settings=st.data(),
    sample=st.sampled_from([0, 1e-2, 0.1]),
    span=st.sampled_from([1, 5, 16, 1 << 24]),
)
def test_batches_are_true_pairs_of_the_thinned_text(texts, settings, sample, span):
    counts = np.full(sum(map(len, texts)) + 1, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "SPAN", span)

        oracle.check_texts(batches, texts, settings.draw(settings_of(sample=sample)), counts)


@given(
    texts=st.lists(st.lists(st.integers(-1, 4), max_size=7), min_size=1, max_size=8).filter(any),
    settings=settings_of(window=1, sample=0),
    span=st.sampled_from([1, 7, 1 << 24]),
)
def test_a_window_of_one_gives_all_neighbors_and_nothing_else(texts, settings, span):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "SPAN", span)

        oracle.check_neighboring_pairs(batches, texts, settings, np.arange(1, 6))


@pytest.mark.parametrize("check", [oracle.check_windows, oracle.check_thinning, oracle.check_noise])
def test_what_is_drawn_follows_its_rule(check):
    check(batches)


@pytest.mark.parametrize(("window", "block"), [(60, 60), (60, 1), (1, 60)])
def test_the_widest_windows_and_blocks_are_right(window, block):
    settings = Settings(window=window, block=block, blocks=2, noise=1, sample=0, epochs=1)
    texts = [list(range(1, 151)), list(range(151, 161)), [161], list(range(162, 400))]

    oracle.check_texts(batches, texts, settings, np.ones(400))


def test_texts_of_one_word_have_no_pairs():
    settings = Settings(blocks=2, block=4, epochs=1, sample=0)

    (made,) = oracle.all_batches(batches, [[1]] * 9, settings, [1, 1])

    assert len(made) == 2
    assert all(batch.pairs == 0 and not batch.weights.any() for batch in made)


@pytest.mark.parametrize("texts", [[[]], [[-1, -1], [-1]], []])
def test_text_without_words_gives_no_batch(texts):
    assert list(oracle.sampler(batches, texts, Settings(), [1, 1]).batches()) == []


def test_text_of_which_all_is_thinned_out_gives_no_batch():
    settings = Settings(sample=1e-300)

    assert list(oracle.sampler(batches, [[0, 1]] * 9, settings, [9, 9]).batches()) == []


def test_words_are_seen_in_steps_through_all_epochs():
    settings = Settings(sample=0, block=4, blocks=2, epochs=3)

    seen = [b.seen for b in oracle.sampler(batches, [[0, 1] * 20], settings, [1, 1]).batches()]

    assert seen == list(range(0, 120, 8))


def test_targets_tell_the_text_around_a_block_from_noise():
    settings = Settings(window=2, block=3, noise=4)

    targets = oracle.sampler(batches, [[0]], settings, [1]).targets

    assert targets.tolist() == [1] * 7 + [0] * 4
    assert targets.dtype == np.float32


# -- repeatable ------------------------------------------------------------------------------------

RANDOM = np.random.default_rng(0).integers(-1, 50, (40, 30)).tolist()


def drawn(seed=0, ahead=False, epochs=2):
    settings = Settings(seed=seed, epochs=epochs, block=8, blocks=4, sample=1e-2)
    made = oracle.sampler(batches, RANDOM, settings, np.arange(1, 51)).batches(ahead=ahead)
    return [[part.tolist() for part in batch[:3]] + list(batch[3:]) for batch in made]


@pytest.mark.parametrize("ahead", [False, True])
def test_the_same_seed_gives_the_same_batches_ahead_or_not(ahead):
    assert drawn() == drawn(ahead=ahead)


def test_another_seed_gives_other_batches():
    assert drawn(seed=0)[0] != drawn(seed=1)[0]


def test_every_epoch_is_drawn_anew_and_does_not_depend_on_those_after_it():
    both, first = drawn(), drawn(epochs=1)

    assert both[: len(first)] == first
    assert both[len(first)][:2] != first[0][:2]


# -- ahead -----------------------------------------------------------------------------------------


def test_an_error_in_a_batch_made_ahead_comes_out():
    settings = Settings(sample=0, epochs=1)

    with pytest.raises(IndexError):
        list(oracle.sampler(batches, [[0, 7]], settings, [1, 1]).batches(ahead=True))


def test_leaving_batches_made_ahead_ends_their_thread():
    before = threading.active_count()
    made = oracle.sampler(batches, RANDOM, Settings(blocks=1), np.ones(50)).batches(ahead=True)

    next(made)
    made.close()

    assert threading.active_count() == before


def test_one_batch_is_made_while_another_is_used(monkeypatch):
    made = []

    def slowly():
        for number in range(3):
            made.append(number)
            yield number

    for number in batches._ahead(slowly()):
        deadline = time.monotonic() + 5
        while len(made) < min(number + 2, 3) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert made == list(range(min(number + 2, 3)))
