"""A subclass whose elements lie elsewhere: every change of elements goes through its door."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

from mmembed.autograd import Tensor, no_grad, ones
from mmembed.autograd.memory import rows_of, same_place


class Guarded(Tensor):
    """Rows that only `writing` can change; each visit is noted with the rows it named."""

    def __init__(self, rows, dim):
        self.rows = np.zeros((rows, dim), np.float32)
        self.visits = []
        super().__init__(self.rows, requires_grad=True)

    @property
    def array(self):
        view = self.rows.view()
        view.flags.writeable = False
        return view

    @contextmanager
    def writing(self, rows=None):
        self.visits.append(rows)
        yield self.rows
        self._version_counter.bump()


CHANGES = {
    "add_": lambda w: w.add_(1),
    "copy_": lambda w: w.copy_(ones(4, 3)),
    "fill_": lambda w: w.fill_(1),
    "normal_": lambda w: w.normal_(),
    "row assigned": lambda w: w.__setitem__(1, 1.0),
    "ids assigned": lambda w: w.__setitem__([0, 2], ones(2, 3)),
    "mask assigned": lambda w: w.__setitem__(np.array([True, False, True, False]), 1.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_goes_through_the_door(name):
    w = Guarded(4, 3)

    with no_grad():
        CHANGES[name](w)

    assert w.visits == [None]
    assert w._version == 1
    assert np.any(w.rows != 0)


THROUGH_VIEWS = {
    "row": (lambda w: w[1], slice(1, 2)),
    "rows": (lambda w: w[1:3], slice(1, 3)),
    "every other row": (lambda w: w[::2], slice(0, 3)),
    "reversed rows": (lambda w: w[2:0:-1], slice(1, 3)),
    "column": (lambda w: w[:, 1], slice(0, 4)),
    "element": (lambda w: w[3, 2], slice(3, 4)),
    "transposed": (lambda w: w.t(), slice(0, 4)),
    "rows of the transposed": (lambda w: w.t()[:, 1:2], slice(1, 2)),
    "flat": (lambda w: w.reshape(-1)[2:5], slice(0, 2)),
    "detached row": (lambda w: w.detach()[2], slice(2, 3)),
    "view of a view": (lambda w: w[1:][1:][0], slice(2, 3)),
}


@pytest.mark.parametrize("name", THROUGH_VIEWS)
def test_a_change_through_a_view_goes_through_the_door_and_names_its_rows(name):
    take, rows = THROUGH_VIEWS[name]
    w = Guarded(4, 3)
    expected = np.zeros((4, 3), np.float32)
    take(Tensor(expected)).array[...] = 5

    with no_grad():
        take(w).fill_(5)

    assert w.visits == [rows]
    assert w._version == 1
    np.testing.assert_array_equal(w.rows, expected)


def test_row_arithmetic_in_place_works_under_no_grad():
    w = Guarded(4, 3)

    with no_grad():
        w[1] += 2
        w[[0, 3]] -= 1

    assert w.rows[:, 0].tolist() == [-1, 2, 0, -1]


def test_the_door_is_closed_to_recorded_changes():
    w = Guarded(4, 3)

    for change in CHANGES.values():
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
            change(w)
    assert w.visits == []


def test_assignment_passes_the_index_to_assign():
    seen = []

    class Noting(Guarded):
        def _assign(self, index, values):
            seen.append((index, values))

    w = Noting(4, 3)

    with no_grad():
        w[2] = 1.0
        w[[0, 1]] = 2.0

    assert seen[0] == ((2, ...), 1.0)
    assert seen[1][0][0].tolist() == [0, 1]


def test_operations_give_plain_tensors():
    w = Guarded(4, 3)

    for result in (w * 2, w[0], w.detach(), w.clone(), w.t(), w == 0):
        assert type(result) is Tensor


def test_gradients_reach_a_subclass():
    w = Guarded(4, 3)

    (w[[1, 1]] * 2).sum().backward()

    assert w.grad.tolist()[1] == [4, 4, 4]


def test_writing_counts_one_change_even_if_the_writer_fails():
    w = ones(2)

    with pytest.raises(KeyError), w.writing():
        raise KeyError

    assert w._version == 1


def test_writing_yields_the_array_itself():
    w = ones(2, requires_grad=True)

    with w.writing([0]) as array:
        array[0] = 5

    assert array is w.array
    assert (w._version, w.grad_fn) == (1, None)


def test_an_empty_view_may_be_written():
    w = Guarded(4, 3)

    with no_grad():
        w[2:2].fill_(1)

    assert w.visits == [slice(0, 0)]
    assert not w.rows.any()


def test_a_view_of_rows_that_moved_is_refused():
    w = Guarded(4, 3)
    view = w[3]
    w.rows = np.zeros((4, 3), np.float32)

    with no_grad(), pytest.raises(RuntimeError, match="no longer lies in the array"):
        view.fill_(1)


def test_rows_of_a_layout_without_rows_are_all_rows():
    whole = np.zeros((4, 3), order="F")

    assert rows_of(whole[1:2], whole) is None
    assert rows_of(np.zeros(()), np.zeros(())) is None


def test_the_same_place_is_found_in_another_map():
    whole = np.arange(24).reshape(4, 6)
    target = whole + 100

    for view in (whole[1:3, ::2], whole[::-1, 1], whole.T[2], whole[3, 3:4]):
        np.testing.assert_array_equal(same_place(view, whole, target), view + 100)
