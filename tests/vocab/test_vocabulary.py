"""Vocabulary: words to ids and back, in memory and in files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmembed as mm
from mmembed.errors import MmembedError, VocabularyError
from mmembed.vocab import Vocabulary

FILES = ("counts.npy", "keys", "offsets.npy")
ODD_WORDS = [
    "",
    "été",
    "e\u0301te\u0301",
    "日本語",
    "🙂",
    "two\nlines\r\n",
    "a b",
    "\0",
    "the",
    "The",
]


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "vocab"


def opened(words, directory, counts=None):
    Vocabulary(words, counts).save(directory)
    return Vocabulary.open(directory)


# -- files and back --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [[], [""], ["a"], ["", "a"], ["a", ""], ODD_WORDS, ODD_WORDS[::-1]]
)
def test_words_and_counts_come_back_from_files(words, directory):
    counts = [7 * i + 2**40 for i in range(len(words))]

    vocabulary = opened(words, directory, counts)

    assert list(vocabulary) == words
    assert vocabulary.counts.tolist() == counts
    assert vocabulary.counts.dtype == np.int64
    assert [vocabulary[word] for word in words] == list(range(len(words)))
    assert sorted(os.listdir(directory)) == list(FILES)


@given(words=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), unique=True))
def test_any_words_come_back_from_files(words, tmp_path_factory):
    vocabulary = opened(words, tmp_path_factory.mktemp("any") / "vocab")

    assert list(vocabulary) == words
    assert vocabulary.ids(words).tolist() == list(range(len(words)))


def test_the_files_are_what_the_module_says(directory):
    opened(["the", "été", ""], directory, [5, 2, 1])

    assert (directory / "keys").read_bytes() == "theété".encode()
    assert np.load(directory / "offsets.npy").tolist() == [0, 3, 8, 8]
    assert np.load(directory / "counts.npy").tolist() == [5, 2, 1]


def test_opening_maps_the_files(directory):
    vocabulary = opened(["the", "cat"], directory)

    maps = Path("/proc/self/maps").read_text()

    assert isinstance(vocabulary.counts, np.memmap)
    assert all(str(directory / name) in maps for name in FILES)


def test_what_is_mapped_cannot_be_written(directory):
    vocabulary = opened(["the", "cat"], directory, [2, 1])

    with pytest.raises(ValueError, match="read-only"):
        vocabulary.counts[0] = 9


def test_an_opened_vocabulary_saves_a_twin(tmp_path):
    opened(ODD_WORDS, tmp_path / "one").save(tmp_path / "two")

    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_opened_vocabulary_outlives_its_files(directory):
    vocabulary = opened(["the", "cat"], directory)

    shutil.rmtree(directory)

    assert vocabulary.word(1) == "cat"
    assert vocabulary["the"] == 0


def test_opening_nothing_is_no_file(directory):
    with pytest.raises(FileNotFoundError):
        Vocabulary.open(directory)


# -- looking up ------------------------------------------------------------------------------------


@pytest.fixture(params=["in memory", "opened"])
def vocabulary(request, directory):
    made = Vocabulary(["the", "cats", "dog", "cat"], [9, 3, 2, 1])
    if request.param == "in memory":
        return made
    made.save(directory)
    return Vocabulary.open(directory)


def test_words_and_ids_belong_together(vocabulary):
    assert len(vocabulary) == 4
    assert list(vocabulary) == ["the", "cats", "dog", "cat"]
    assert vocabulary["dog"] == 2
    assert vocabulary.word(2) == "dog"
    assert "dog" in vocabulary
    assert "Dog" not in vocabulary
    assert 2 not in vocabulary


def test_iteration_can_begin_again(vocabulary):
    assert list(vocabulary) == list(vocabulary)


def test_ids_are_minus_one_for_words_there_are_not(vocabulary):
    ids = vocabulary.ids(iter(["dog", "cow", "the", "", "dog"]))

    assert ids.tolist() == [2, -1, 0, -1, 2]
    assert ids.dtype == np.int64
    assert vocabulary.ids([]).shape == (0,)


def test_an_unknown_word_is_named_with_words_like_it(vocabulary):
    with pytest.raises(VocabularyError) as error:
        vocabulary["catss"]

    assert str(error.value) == (
        "'catss' is not among the 4 words of the vocabulary; did you mean 'cats', 'cat'?"
    )
    assert isinstance(error.value, KeyError)
    assert isinstance(error.value, MmembedError)


def test_an_unknown_word_like_no_other_is_named_alone(vocabulary):
    with pytest.raises(VocabularyError) as error:
        vocabulary["xyzzy"]

    assert str(error.value) == "'xyzzy' is not among the 4 words of the vocabulary"


@pytest.mark.parametrize("index", [4, -1, 2**70])
def test_an_id_outside_the_vocabulary_is_refused(vocabulary, index):
    with pytest.raises(IndexError) as error:
        vocabulary.word(index)

    assert str(error.value) == f"no word {index}; there are 4 (valid: 0..3)"


def test_an_empty_vocabulary_has_no_word(directory):
    for vocabulary in (Vocabulary([]), opened([], directory)):
        assert len(vocabulary) == 0
        assert vocabulary.ids(["the"]).tolist() == [-1]
        with pytest.raises(VocabularyError, match="'the' is not among the 0 words"):
            vocabulary["the"]
        with pytest.raises(IndexError, match="no word 0; there are 0"):
            vocabulary.word(0)


# -- making ----------------------------------------------------------------------------------------


def test_the_same_word_twice_is_refused():
    with pytest.raises(ValueError, match="the same word occurs twice"):
        Vocabulary(["the", "cat", "the"])


def test_words_that_only_look_the_same_are_two():
    assert len(Vocabulary(["é", "e\u0301"])) == 2


@pytest.mark.parametrize("counts", [[], [1], [1, 2, 3], [[1, 2]]])
def test_counts_that_do_not_fit_the_words_are_refused(counts):
    with pytest.raises(ValueError, match="2 words and counts of shape"):
        Vocabulary(["the", "cat"], counts)


def test_counts_are_zero_unless_given():
    assert Vocabulary(["the", "cat"]).counts.tolist() == [0, 0]


def test_the_class_is_a_public_name():
    assert mm.Vocabulary is Vocabulary
