"""Saving a vocabulary: it appears whole or not at all, whatever fails on the way."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from mmembed.vocab import Vocabulary, vocabulary

VOCABULARY = Vocabulary(["the", "cat", "été"], [5, 2, 1])


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "vocab"


def make_file(path):
    path.write_text("mine")


def make_link_to_nothing(path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [os.mkdir, make_file, make_link_to_nothing])
def test_what_is_there_already_is_not_replaced(directory, make):
    make(directory)

    with pytest.raises(FileExistsError, match=r"vocab exists already"):
        VOCABULARY.save(directory)

    assert os.listdir(directory.parent) == ["vocab"]
    assert not directory.is_dir() or os.listdir(directory) == []


def test_nothing_is_made_where_there_is_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        VOCABULARY.save(tmp_path / "missing" / "vocab")

    assert os.listdir(tmp_path) == []


def test_a_second_save_leaves_the_first(directory):
    VOCABULARY.save(directory)

    with pytest.raises(FileExistsError):
        Vocabulary(["other"]).save(directory)

    assert list(Vocabulary.open(directory)) == ["the", "cat", "été"]


class Failing:
    """Lets the first `at` calls of what it wraps be made, and fails the next one."""

    def __init__(self, at, error):
        self.at, self.error, self.calls = at, error, 0

    def wrap(self, call):
        def wrapped(*arguments, **options):
            self.calls += 1
            if self.calls - 1 == self.at:
                raise self.error
            return call(*arguments, **options)

        return wrapped


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["disk full", "Ctrl-C"])
def test_a_save_that_fails_anywhere_leaves_all_or_nothing_and_no_draft(
    directory, monkeypatch, error
):
    failed = 0
    for at in range(100):
        failing = Failing(at, error)
        with monkeypatch.context() as patch:
            patch.setattr(vocabulary.Path, "write_bytes", failing.wrap(vocabulary.Path.write_bytes))
            patch.setattr(vocabulary.Path, "rename", failing.wrap(vocabulary.Path.rename))
            patch.setattr(np, "save", failing.wrap(np.save))
            patch.setattr(os, "fsync", failing.wrap(os.fsync))
            try:
                VOCABULARY.save(directory)
            except type(error):
                failed += 1
            else:
                break
        assert set(os.listdir(directory.parent)) <= {"vocab"}
        if directory.exists():
            assert list(Vocabulary.open(directory)) == ["the", "cat", "été"]
            directory.rename(directory.parent.with_name(f"{directory.parent.name}-{at}"))

    assert failed == 8  # three files written, three synced, the rename, the folder synced
    assert os.listdir(directory.parent) == ["vocab"]


def test_files_are_synced_before_the_rename_and_the_name_after(directory, monkeypatch):
    log = []
    rename, fsync = vocabulary.Path.rename, os.fsync
    monkeypatch.setattr(
        vocabulary.Path, "rename", lambda path, new: log.append("rename") or rename(path, new)
    )
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: log.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))) or fsync(fd),
    )

    VOCABULARY.save(directory)

    assert sorted(log[:3]) == ["counts.npy", "keys", "offsets.npy"]
    assert log[3:] == ["rename", directory.parent.name]


def test_others_may_not_look_into_a_vocabulary(directory):
    VOCABULARY.save(directory)

    assert directory.stat().st_mode & 0o777 == 0o700
