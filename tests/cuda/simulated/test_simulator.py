"""The simulator's own parts: memory that is checked, and lanes that wait for each other."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.kernels.cuda import copies, sorting
from mmembed.kernels.cuda.memory import as_device, empty
from mmembed.kernels.cuda.running import Kernel
from mmembed.kernels.cuda.simulated import Pointer
from mmembed.kernels.cuda.target import from_below, lanes_where, lanes_with, sync_warp, thread_index

ALL = 0xFFFFFFFF


def test_an_index_outside_memory_is_an_error_on_both_sides():
    memory = Pointer(np.arange(4))

    for bad in (-1, 4):
        with pytest.raises(IndexError):
            memory[bad]
        with pytest.raises(IndexError):
            memory.part(bad, 1)
    with pytest.raises(IndexError):
        memory[-1] = 0


def test_a_wide_load_that_is_not_aligned_is_an_error():
    memory = Pointer(np.zeros(8, np.float32))

    with pytest.raises(ValueError, match="not aligned"):
        memory.part(1 + -memory.memory.ctypes.data // 4 % 4, 4)


def test_lanes_of_a_warp_learn_what_the_others_say():
    out = np.zeros((3, 32), np.int64)

    def body(p_out):
        lane = thread_index()
        p_out[lane] = lanes_with(ALL, lane // 3)
        p_out[32 + lane] = lanes_where(ALL, lane > 29)
        p_out[64 + lane] = from_below(ALL, lane, 2)

    Kernel(body, ["*int64"]).launch(1, as_device(out))

    assert out[0, :4].tolist() == [7, 7, 7, 56]
    assert set(out[1].tolist()) == {3 << 30}
    assert out[2, :4].tolist() == [0, 1, 0, 1]


def test_a_lane_that_does_not_come_is_an_error(monkeypatch):
    monkeypatch.setattr("mmembed.kernels.cuda.simulated._PATIENCE", 0.2)

    def body(p_out):
        if thread_index() != 5:
            sync_warp(ALL)

    with pytest.raises(Exception, match="tid="):
        Kernel(body, ["*int64"]).launch(1, empty(1, "int64"))


def test_a_gather_that_writes_one_row_too_far_is_an_error():
    table, out = np.zeros((3, 4), np.float32), np.zeros((2, 4), np.float32)
    ids, bad = np.zeros(3, np.int64), np.array([copies.NONE])
    given = [as_device(array) for array in (table, ids, out, bad)]

    with pytest.raises(IndexError):
        copies.gather(16, "int64").launch(1, *given, 3, 1, 4, 1)


def test_the_kernels_of_a_plan_do_not_depend_on_how_the_batch_is_cut(monkeypatch):
    from mmembed.kernels.cuda import plans

    ids = np.random.default_rng(4).integers(0, 90, 150)
    found = []
    for chunk, bits in ((32, 4), (64, 8), (256, 3)):
        monkeypatch.setattr(plans, "CHUNK", chunk)
        monkeypatch.setattr(plans, "BITS", bits)
        outs = [np.full(size, -7, np.int64) for size in (150, 150, 151, 1)]
        plans.plan(ids, 90, *outs, np.empty(0, np.int64))
        found.append(outs)

    for other in found[1:]:
        for got, want in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(got, want)
    assert sorting.BITS <= 8  # the counters of a warp
