"""Memory that is used again: only when nobody can see it any more."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest

from mmembed import buffers, nn
from mmembed.autograd import Tensor, tensor

SHAPE = (1024, 512)  # 2 MiB of float32


@pytest.fixture(autouse=True)
def fresh():
    buffers.clear()
    yield
    buffers.clear()


def place(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_when_its_array_is_gone():
    first = buffers.empty(SHAPE, "float32")
    where = place(first)

    del first

    assert place(buffers.empty(SHAPE, "float32")) == where


@pytest.mark.parametrize(
    "keep",
    [
        lambda a: a,
        lambda a: a[1:],
        lambda a: a[1:].reshape(-1)[::2],
        lambda a: a.T,
        lambda a: a.view("uint8"),
        memoryview,
        lambda a: np.frombuffer(a, np.uint8),
        np.from_dlpack,
        lambda a: tensor(a).numpy(),
        lambda a: Tensor(a)[1:].numpy(),
        lambda a: np.lib.stride_tricks.as_strided(a, (3,), (4,)),
    ],
)
def test_memory_is_not_used_again_while_something_shares_it(keep):
    first = buffers.empty(SHAPE, "float32")
    first[...] = 7
    kept = keep(first)

    del first
    gc.collect()
    buffers.empty(SHAPE, "float32")[...] = 9

    shared = np.frombuffer(np.asarray(kept).tobytes(), np.float32)
    assert (shared == 7).all()


def test_results_are_arrays_like_any_other():
    for shape, dtype in (
        (SHAPE, "float32"),
        ((3,), "float64"),
        ((0, 5), "float32"),
        ((1 << 20,), "u1"),
    ):
        array = buffers.empty(shape, dtype)

        assert type(array) is np.ndarray
        assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
        assert array.flags.carray


def test_sizes_that_are_nearly_the_same_share_memory():
    where = place(buffers.empty((1024, 500), "float32"))

    assert place(buffers.empty((1024, 505), "float32")) == where


def test_no_more_is_kept_than_may_be(monkeypatch):
    monkeypatch.setattr(buffers, "MOST", 3 << 20)
    arrays = [buffers.empty(SHAPE, "float32") for _ in range(3)]

    del arrays

    assert buffers._idle_bytes == 2 << 20
    assert sum(len(blocks) for blocks in buffers._idle.values()) == 1


def test_threads_never_get_the_same_memory():
    taken, errors = set(), []
    lock = threading.Lock()

    def work():
        for _ in range(200):
            array = buffers.empty(SHAPE, "float32")
            where = place(array)
            with lock:
                if where in taken:
                    errors.append(where)
                taken.add(where)
            array[0, 0] = 1
            with lock:
                taken.discard(where)
            del array

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_a_pool_of_its_own():
    kept = buffers.empty(SHAPE, "float32")
    del kept

    child = os.fork()
    if child == 0:
        os._exit(0 if buffers._idle_bytes == 0 and buffers.empty(SHAPE, "f4").size else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert buffers._idle_bytes == 2 << 20


def test_outputs_of_lookups_that_are_alive_are_apart():
    table = nn.Embedding(1000, 256, sparse=True)
    ids = np.arange(2048) % 1000

    outs = [table(ids) for _ in range(3)]
    for out in outs:
        out.sum().backward()

    for out in outs:
        np.testing.assert_array_equal(out.detach().numpy(), table.weight.array[ids])
    assert len({place(out.array) for out in outs}) == 3
    assert table.weight.grad._nnz() == 3 * 2048


@pytest.mark.parametrize("shape", [(3,), (1000, 64), (1 << 10, 1 << 10)])
def test_zeros_begin_with_a_cache_line(shape):
    array = buffers.zeros(shape, "float32")

    assert array.shape == shape
    assert place(array) % buffers.CACHE_LINE == 0
    assert not array.any()


def test_memory_of_the_pool_begins_with_a_cache_line():
    assert place(buffers.empty(SHAPE, "float64")) % buffers.CACHE_LINE == 0
