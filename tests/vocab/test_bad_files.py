"""Files that are no vocabulary are refused with CorruptTableError, and with nothing else."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.errors import CorruptTableError
from mmembed.vocab import Vocabulary

NAMES = ("keys", "offsets.npy", "counts.npy")
WORDS = ["the", "cat", "été", "dog"]


@pytest.fixture
def directory(tmp_path):
    Vocabulary(WORDS, [5, 3, 2, 1]).save(tmp_path / "vocab")
    return tmp_path / "vocab"


def truncate(name, size):
    def damage(directory):
        path = directory / name
        path.write_bytes(path.read_bytes()[:size])

    return damage


def extend(name, data):
    def damage(directory):
        with open(directory / name, "ab") as file:
            file.write(data)

    return damage


def hold(name, array):
    return lambda directory: np.save(directory / name, array)


def fill(name, data):
    return lambda directory: (directory / name).write_bytes(data)


def zipped():
    file = io.BytesIO()
    np.savez(file, np.arange(5))
    return file.getvalue()


def beginning_of_an_npy(header):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


WRAPS = 2**63 - 1

DAMAGES = [
    ("keys shorter", truncate("keys", 5)),
    ("keys gone", truncate("keys", 0)),
    ("keys longer", extend("keys", b"x")),
    ("offsets cut in the numbers", truncate("offsets.npy", -1)),
    ("offsets cut in the header", truncate("offsets.npy", 40)),
    ("offsets cut in the magic", truncate("offsets.npy", 3)),
    ("offsets empty", truncate("offsets.npy", 0)),
    ("counts cut in the numbers", truncate("counts.npy", -1)),
    ("counts empty", truncate("counts.npy", 0)),
    ("offsets of another dtype", hold("offsets.npy", np.array([0, 3, 6, 11, 14], np.int32))),
    ("offsets big-endian", hold("offsets.npy", np.array([0, 3, 6, 11, 14], ">i8"))),
    ("offsets unsigned", hold("offsets.npy", np.array([0, 3, 6, 11, 14], np.uint64))),
    ("offsets of floats", hold("offsets.npy", np.array([0, 3, 6, 11, 14.0]))),
    ("counts of floats", hold("counts.npy", np.array([5, 3, 2, 1.0]))),
    ("one count missing", hold("counts.npy", np.array([5, 3, 2]))),
    ("one offset missing", hold("offsets.npy", np.array([0, 3, 6, 14]))),
    ("no offset", hold("offsets.npy", np.array([], np.int64))),
    ("offsets of no dimension", hold("offsets.npy", np.int64(14))),
    ("offsets of two dimensions", hold("offsets.npy", np.array([[0, 3, 6, 11, 14]]))),
    (
        "counts of two dimensions",
        hold("counts.npy", np.array([[5, 3], [2, 1]])),
    ),
    ("offsets not ascending", hold("offsets.npy", np.array([0, 6, 3, 11, 14]))),
    ("offsets below zero", hold("offsets.npy", np.array([0, -3, 6, 11, 14]))),
    ("first offset not zero", hold("offsets.npy", np.array([1, 3, 6, 11, 14]))),
    ("last offset short", hold("offsets.npy", np.array([0, 3, 6, 11, 13]))),
    ("last offset beyond", hold("offsets.npy", np.array([0, 3, 6, 11, 15]))),
    (
        "offsets that wrap around",
        hold("offsets.npy", np.array([0, WRAPS, -WRAPS - 1, -1, 14])),
    ),
    (
        "keys that are not UTF-8",
        fill("keys", b"\xff" * 14),
    ),
    ("counts pickled in an npy", hold("counts.npy", np.array([5, 3, 2, None]))),
    ("counts a pickle", fill("counts.npy", pickle.dumps(np.arange(4)))),
    ("counts an npz", fill("counts.npy", zipped())),
    ("counts nearly a zip", fill("counts.npy", b"PK\3\4" + bytes(60))),
    ("counts text", fill("counts.npy", b"5 3 2 1\n")),
    (
        "header that ends early",
        fill("counts.npy", beginning_of_an_npy(b"{'descr': (")),
    ),
    ("header of another version", fill("counts.npy", b"\x93NUMPY\x09\x00" + bytes(99))),
]


@pytest.mark.parametrize("damage", [pytest.param(damage, id=name) for name, damage in DAMAGES])
def test_a_damaged_vocabulary_is_refused(directory, damage):
    damage(directory)

    with pytest.raises(CorruptTableError) as error:
        Vocabulary.open(directory)

    assert str(error.value).startswith(f"{directory}: ")
    assert isinstance(error.value, OSError)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_refused_and_named(directory, name):
    (directory / name).unlink()

    with pytest.raises(FileNotFoundError, match=name):
        Vocabulary.open(directory)


def test_a_pickle_in_a_vocabulary_is_not_executed(directory, tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "executed"), "w")

    fill("counts.npy", pickle.dumps(Trap()))(directory)

    with pytest.raises(CorruptTableError):
        Vocabulary.open(directory)
    assert not (tmp_path / "executed").exists()


def test_the_sound_vocabulary_is_not_refused(directory):
    assert list(Vocabulary.open(directory)) == WORDS
    assert zipfile.is_zipfile(io.BytesIO(zipped()))


@given(
    data=st.data(),
    name=st.sampled_from(["offsets.npy", "counts.npy"]),
    start=st.sampled_from(
        [b"", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00\x76\x00{'descr': '<i8', "]
    ),
)
def test_any_bytes_are_a_vocabulary_or_refused(tmp_path_factory, data, name, start):
    directory = tmp_path_factory.mktemp("any") / "vocab"
    Vocabulary(WORDS).save(directory)
    (directory / name).write_bytes(start + data.draw(st.binary(max_size=200)))

    with pytest.raises(CorruptTableError):
        Vocabulary.open(directory)


@given(at=st.integers(0, 127), value=st.integers(0, 255), name=st.sampled_from(NAMES[1:]))
def test_a_changed_byte_of_a_header_is_refused_or_changes_nothing(
    tmp_path_factory, at, value, name
):
    directory = tmp_path_factory.mktemp("byte") / "vocab"
    Vocabulary(WORDS).save(directory)
    data = bytearray((directory / name).read_bytes())
    data[at] = value
    (directory / name).write_bytes(data)

    try:
        vocabulary = Vocabulary.open(directory)
    except CorruptTableError:
        return

    assert list(vocabulary) == WORDS


def test_a_word_that_is_there_twice_is_refused_when_a_word_is_looked_up(directory):
    fill("keys", b"thethe\xc3\xa9t\xc3\xa9dog")(directory)
    vocabulary = Vocabulary.open(directory)

    with pytest.raises(CorruptTableError, match="of the 4 words of the vocabulary only 3"):
        vocabulary["dog"]
