"""Reading texts: files, folders, standard input, and what is refused."""

from __future__ import annotations

import io
import itertools
import os
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.errors import CorpusError
from mmembed.training import corpus, read_texts, text_files


@pytest.fixture
def file(tmp_path):
    return tmp_path / "text.txt"


@pytest.fixture
def folder(tmp_path):
    """A folder of five texts, one of them hidden in a folder, and a binary file."""
    folder = tmp_path / "texts"
    for name, text in {
        "b.txt": "second",
        "a.txt": "first\n\nfirst again",
        "c.md": "third",
        "sub/d.txt": "fourth",
        "sub/deep/e.txt": "fifth",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "picture.png").write_bytes(b"\x89PNG\0\0")
    return folder


def read(file, content, **options):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_texts(file, **options))


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat, the CAT!", ["the", "cat", "the", "cat"]),
        ("don't stop-gap", ["don", "t", "stop", "gap"]),
        ("snake_case x2y 42 3.14", ["snake", "case", "x", "y"]),
        ("Été ÅNGSTRÖM Straße", ["été", "ångström", "straße"]),
        ("ПРИВЕТ мир 日本語 Ελλάδα", ["привет", "мир", "日本語", "ελλάδα"]),
        ("\ufeffmarked 🙂 smile", ["marked", "smile"]),
        ("tab\tform\fvertical\vnbsp\u00a0end", ["tab", "form", "vertical", "nbsp", "end"]),
    ],
)
def test_words_are_runs_of_letters_in_lower_case(file, text, words):
    assert read(file, text) == [words]


def test_a_word_does_not_fall_apart_by_being_lower_cased(file):
    assert len(read(file, "İstanbul")[0]) == 1


@pytest.mark.parametrize("word", ["e\u0301te\u0301", "हिन्दी", "ที่นี่"])
def test_marks_on_letters_do_not_end_a_word(file, word):
    assert len(read(file, word)[0]) == 1


def test_bytes_that_are_no_utf8_end_a_word_and_nothing_more(file):
    assert read(file, b"caf\xe9 bar\xff\xfebaz \xc3") == [["caf", "bar", "baz"]]


# -- texts -----------------------------------------------------------------------------------------

TEXT = "one two\nthree\n\n \t\nfour\n1 2 3\nfive"


def test_blank_lines_separate_texts(file):
    assert read(file, TEXT) == [["one", "two", "three"], ["four", "five"]]


def test_every_line_is_a_text_if_asked_for(file):
    assert read(file, TEXT, lines=True) == [["one", "two"], ["three"], ["four"], ["five"]]


@pytest.mark.parametrize("lines", [False, True])
def test_windows_line_ends_are_line_ends(file, lines):
    assert read(file, TEXT.replace("\n", "\r\n"), lines=lines) == read(file, TEXT, lines=lines)


@pytest.mark.parametrize("text", ["", "\n\n\n", "123 ...\n\n456", "   "])
@pytest.mark.parametrize("lines", [False, True])
def test_a_file_without_words_has_no_text(file, text, lines):
    assert read(file, text, lines=lines) == []


@given(
    paragraphs=st.lists(
        st.lists(st.lists(st.sampled_from(["ab", "Ç", "x", "é"]), min_size=1), min_size=1)
    ),
    gap=st.integers(1, 3),
)
def test_what_is_written_is_read(tmp_path_factory, paragraphs, gap):
    file = tmp_path_factory.mktemp("text") / "text.txt"
    text = ("\n" * (gap + 1)).join("\n".join(map(" ".join, lines)) for lines in paragraphs)
    words = [[[word.lower() for word in line] for line in lines] for lines in paragraphs]

    assert read(file, text) == [list(itertools.chain(*lines)) for lines in words]
    assert read(file, text, lines=True) == list(itertools.chain(*words))


def test_texts_are_read_as_they_are_asked_for(file):
    texts = read_texts(file)
    file.write_text("late")

    assert next(texts) == ["late"]


# -- folders ---------------------------------------------------------------------------------------


def test_files_of_a_folder_are_read_in_the_order_of_their_paths(folder):
    texts = [" ".join(text) for text in read_texts(folder)]

    assert texts == ["first", "first again", "second", "third", "fourth", "fifth"]


def test_a_text_does_not_go_on_in_the_next_file(folder):
    (folder / "a.txt").write_text("open")

    assert list(read_texts(folder))[:2] == [["open"], ["second"]]


def test_a_pattern_picks_files_by_name(folder):
    assert [path.name for path in text_files(folder, "*.txt")] == [
        "a.txt", "b.txt", "d.txt", "e.txt",
    ]  # fmt: skip
    assert list(read_texts(folder, pattern="c.*")) == [["third"]]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (["sub"], ["a.txt", "b.txt", "c.md"]),
        (["deep", "b.txt"], ["a.txt", "c.md", "d.txt"]),
        (["sub/deep"], ["a.txt", "b.txt", "c.md", "d.txt", "e.txt"]),  # it is names that count
        (["texts"], ["a.txt", "b.txt", "c.md", "d.txt", "e.txt"]),  # the folder itself is asked for
        (("A.TXT", "su"), ["a.txt", "b.txt", "c.md", "d.txt", "e.txt"]),
    ],
)
def test_names_of_files_and_folders_are_passed_over(folder, exclude, left):
    assert [path.name for path in text_files(folder, exclude=exclude)] == left


def test_links_to_nothing_and_things_that_are_no_files_are_passed_over(folder):
    (folder / "link").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")

    assert len(list(text_files(folder))) == 5


def test_binary_files_are_passed_over_in_a_folder(folder):
    assert "picture.png" not in [path.name for path in text_files(folder)]
    assert sum(map(len, read_texts(folder))) == 7


@pytest.mark.parametrize("pattern", ["*.rst", "*.png", "nothing"])
def test_a_folder_without_such_a_text_file_is_refused(folder, pattern):
    with pytest.raises(CorpusError) as error:
        list(read_texts(folder, pattern=pattern))

    assert str(error.value) == f"no text file named {pattern!r} in {folder}"
    assert isinstance(error.value, ValueError)


def test_a_file_that_is_binary_further_on_is_passed_over_in_a_folder(folder):
    (folder / "archive").write_bytes(b"text " * 20_000 + b"\0")

    assert sum(map(len, read_texts(folder))) >= 7


# -- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\0", 1),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 3),
        (b"words\nand\0more", 2),
        ("sixteen bits".encode("utf-16"), 1),
        (b"word\n" * 20_000 + b"\0", 20_001),
    ],
)
def test_a_binary_file_is_refused_by_name(file, content, line):
    with pytest.raises(CorpusError) as error:
        read(file, content)

    assert str(error.value) == f"{file} is not text: it has a zero byte in line {line}"


def test_a_missing_path_is_refused_by_name(file):
    with pytest.raises(FileNotFoundError) as error:
        list(read_texts(file))

    assert str(error.value) == f"there is no file or folder {file}"


# -- standard input --------------------------------------------------------------------------------


def test_a_dash_is_standard_input(monkeypatch):
    stdin = types.SimpleNamespace(buffer=io.BytesIO("Eins zwei\n\ndrei ü".encode()))
    monkeypatch.setattr(corpus.sys, "stdin", stdin)

    assert list(read_texts("-")) == [["eins", "zwei"], ["drei", "ü"]]


def test_binary_data_on_standard_input_is_refused(monkeypatch):
    stdin = types.SimpleNamespace(buffer=io.BytesIO(b"\0"))
    monkeypatch.setattr(corpus.sys, "stdin", stdin)

    with pytest.raises(CorpusError, match="standard input is not text"):
        list(read_texts("-"))


# -- how far ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("content", [b"", b"no end", TEXT.encode(), b"\n\n\n", b"\xff\n\xe9\n"])
def test_bytes_read_add_up_to_the_size_of_the_file(file, content, lines):
    told = []

    read(file, content, lines=lines, on_bytes=told.append)

    assert sum(told) == len(content)
    assert all(n > 0 for n in told)


def test_bytes_read_add_up_over_the_text_files_of_a_folder(folder):
    told = []

    list(read_texts(folder, pattern="*.txt", exclude=["deep"], on_bytes=told.append))

    sizes = [(folder / name).stat().st_size for name in ("a.txt", "b.txt", "sub/d.txt")]
    assert sum(told) == sum(sizes)
