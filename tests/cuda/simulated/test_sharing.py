"""Arrays that libraries hand each other without a copy; in the simulator they are on the CPU."""

from __future__ import annotations

import gc

import ml_dtypes
import numpy as np
import pytest

from mmembed.kernels.cuda import as_device, body, dlpack, empty, to_device


@pytest.fixture(autouse=True)
def nothing_left():
    """What other tests left is not given back in the middle of these."""
    gc.collect()


def test_numpy_shares_memory_with_an_array_that_is_handed_out():
    array = to_device(np.arange(12, dtype=np.float32).reshape(3, 4))

    shared = np.from_dlpack(array)
    array.set(np.full((3, 4), 7, np.float32))

    assert shared.shape == (3, 4)
    assert (shared == 7).all()


def test_memory_lives_as_long_as_somebody_has_it():
    before = dlpack.handed_out()
    shared = np.from_dlpack(to_device(np.arange(6)))
    gc.collect()

    assert shared.tolist() == list(range(6))
    assert dlpack.handed_out() == before + 1
    del shared
    gc.collect()
    assert dlpack.handed_out() == before


def test_a_capsule_that_nobody_takes_is_given_back():
    before = dlpack.handed_out()

    capsule = empty(3, "float64").__dlpack__()
    assert dlpack.handed_out() == before + 1
    del capsule
    gc.collect()

    assert dlpack.handed_out() == before


def test_rows_of_another_library_are_gathered_and_changed_where_they_are():
    torch = pytest.importorskip("torch")
    table = torch.arange(24.0).reshape(6, 4)
    out = torch.zeros(2, 4)

    body.gather(table, torch.tensor([5, 1]), out)
    body.renorm(table, torch.tensor([5]), 1.0, 2.0)

    assert out.tolist() == [[20, 21, 22, 23], [4, 5, 6, 7]]
    assert table[5].norm().item() == pytest.approx(1.0, rel=1e-6)


def test_strided_rows_and_bfloat16_are_taken_as_they_are():
    torch = pytest.importorskip("torch")
    wide = torch.arange(32.0).reshape(4, 8).to(torch.bfloat16)

    array = as_device(wide[:, 2:5])
    out = empty((2, 3), ml_dtypes.bfloat16)
    body.gather(array, np.array([3, 0]), out)

    assert array.dtype == ml_dtypes.bfloat16
    assert array.strides == (16, 2)
    assert out.numpy().astype(float).tolist() == [[26, 27, 28], [2, 3, 4]]
    assert torch.from_dlpack(out).dtype == torch.bfloat16


def test_what_was_taken_is_given_back_once():
    array = to_device(np.arange(4))
    before = dlpack.handed_out()
    capsule = array.__dlpack__()

    taken = dlpack.Taken(capsule)
    with pytest.raises(BufferError, match="taken before"):
        dlpack.Taken(capsule)
    del capsule
    assert dlpack.handed_out() == before + 1
    del taken
    gc.collect()

    assert dlpack.handed_out() == before


def test_what_is_not_on_the_device_and_a_copy_are_refused():
    with pytest.raises(TypeError, match="expected an array on the GPU, got list"):
        as_device([1, 2])
    with pytest.raises(BufferError, match="shared where they are"):
        empty(3, "float32").__dlpack__(copy=True)
    with pytest.raises(BufferError, match="DLPack has no"):
        empty(3, "V3").__dlpack__()
