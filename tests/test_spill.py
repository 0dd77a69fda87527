"""Dense gradients of tables larger than memory are on the table's disk; results are the same."""

from __future__ import annotations

import errno
import mmap
import os

import numpy as np
import pytest

import mmembed as mm
from mmembed import memory, spill

ROWS, DIM = 30_000, 16


@pytest.fixture
def little_memory(monkeypatch):
    """The machine has a megabyte."""
    monkeypatch.setattr(memory, "limit", lambda: 1 << 20)


def test_what_fits_in_memory_is_there(tmp_path):
    assert spill.zeros((5, 2), "float32", tmp_path, np.array([1])).base is None


def test_without_a_disk_it_is_in_memory(little_memory):
    assert spill.zeros((ROWS, DIM), "float32", None, np.array([1])).base is None


def test_what_is_larger_is_a_map_of_a_file_without_a_name(little_memory, tmp_path):
    array = spill.zeros((ROWS, DIM), "float64", tmp_path, np.array([0, 7, ROWS - 1]))

    assert isinstance(array.base, mmap.mmap)
    assert (array.shape, array.dtype) == ((ROWS, DIM), np.float64)
    assert not array.any()
    array[ROWS - 1] = 3
    assert array[ROWS - 1].sum() == 3 * DIM
    assert list(tmp_path.iterdir()) == []


def test_the_disk_has_room_for_the_rows_that_will_be_written_and_no_others(
    little_memory, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(os, "posix_fallocate", lambda fd, at, size: asked.append((at, size)))
    page = mmap.PAGESIZE
    rows = np.array([0, 1, page // 64, 5 * page // 64, 6 * page // 64 - 1])

    spill.zeros((ROWS, DIM), "float32", tmp_path, rows)

    assert asked == [(0, 2 * page), (5 * page, page)]


def test_a_full_disk_is_an_error_before_anything_is_written(little_memory, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    emb = mm.Embedding(ROWS, DIM, path=tmp_path / "t")
    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(OSError, match="No space left"):
        emb([1, 2]).sum().backward()

    assert emb.weight.grad is None
    emb.table.close()


def test_a_file_system_that_cannot_reserve_is_used_all_the_same(
    little_memory, tmp_path, monkeypatch
):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)

    assert isinstance(spill.zeros((ROWS, DIM), "float32", tmp_path, np.array([3])).base, mmap.mmap)


@pytest.mark.parametrize("bag", [False, True])
@pytest.mark.parametrize("optimizer", ["SGD", "Adagrad", "Adam"])
def test_training_with_a_gradient_on_disk_is_training_with_one_in_memory(
    tmp_path, monkeypatch, bag, optimizer
):
    ids = np.random.default_rng(0).integers(0, ROWS, (20, 5))
    start = np.random.default_rng(1).random((ROWS, DIM), dtype=np.float32)
    kind = mm.EmbeddingBag if bag else mm.Embedding
    results = []
    for name, limit in (("memory", 1 << 40), ("disk", 1 << 20)):
        monkeypatch.setattr(memory, "limit", lambda limit=limit: limit)
        emb = kind(ROWS, DIM, path=tmp_path / name, _weight=start)
        rule = getattr(mm.optim, optimizer)(emb.parameters(), lr=0.1)
        for _ in range(2):
            rule.zero_grad()
            emb(ids).sum().backward()
            rule.step()
        assert isinstance(emb.weight.grad.array.base, mmap.mmap) == (name == "disk")
        emb(ids).sum().backward()  # adds to the gradient in place
        assert isinstance(emb.weight.grad.array.base, mmap.mmap) == (name == "disk")
        results.append((emb.table[:], emb.weight.grad.numpy().copy()))
        emb.table.close()

    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)
