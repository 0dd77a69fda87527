"""Version counters, and which operations save what."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.autograd import cat, no_grad, ones, ops, randn, stack, tensor


def leaf(*shape):
    return ones(*shape, requires_grad=True)


VIEWS = {
    "t": lambda w: w.t(),
    "T": lambda w: w.T,
    "mT": lambda w: w.mT,
    "transpose": lambda w: w.transpose(0, 1),
    "permute": lambda w: w.permute(1, 0),
    "view": lambda w: w.view(-1),
    "reshape": lambda w: w.reshape(-1),
    "flatten": lambda w: w.flatten(),
    "row": lambda w: w[0],
    "rows": lambda w: w[1:],
    "columns": lambda w: w[:, ::2],
    "reversed": lambda w: w[::-1],
    "element": lambda w: w[0, 1],
    "everything": lambda w: w[...],
    "none": lambda w: w[None],
    "unsqueeze": lambda w: w.unsqueeze(1),
    "squeeze": lambda w: w.squeeze(),
    "detach": lambda w: w.detach(),
    "view of a view": lambda w: w[1:].t().detach()[0],
    "iteration": lambda w: next(iter(w)),
}
COPIES = {
    "clone": lambda w: w.clone(),
    "ids": lambda w: w[[0, 1]],
    "mask": lambda w: w[w > 0],
    "reshape of a transposed": lambda w: w.t().reshape(-1),
    "sum": lambda w: w + 0,
    "cast": lambda w: w.double(),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_share_memory_and_version_counter(name):
    w = leaf(3, 5)
    view = VIEWS[name](w)

    with no_grad():
        w.mul_(2)

    assert np.shares_memory(view.array, w.array)
    assert view._version == w._version == 1
    assert np.all(view.array == 2)


@pytest.mark.parametrize("name", VIEWS)
def test_a_change_through_a_view_is_counted_once_for_all(name):
    w = leaf(3, 5)

    with no_grad():
        VIEWS[name](w).add_(1)

    assert w._version == 1
    assert w.array.sum() > 15


@pytest.mark.parametrize("name", COPIES)
def test_copies_have_a_counter_of_their_own(name):
    w = leaf(3, 5)
    copy = COPIES[name](w)

    with no_grad():
        w.mul_(2)

    assert not np.shares_memory(copy.array, w.array)
    assert copy._version == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.add_(1),
        lambda w: w.sub_(1),
        lambda w: w.mul_(1),
        lambda w: w.div_(1),
        lambda w: w.neg_(),
        lambda w: w.copy_(ones(2, 2)),
        lambda w: w.zero_(),
        lambda w: w.fill_(1),
        lambda w: w.normal_(),
        lambda w: w.uniform_(),
        lambda w: w.__setitem__(0, 1.0),
        lambda w: w.__setitem__([0, 1], 1.0),
        lambda w: w.__iadd__(1),
        lambda w: w.__isub__(1),
        lambda w: w.__imul__(1),
        lambda w: w.__itruediv__(1),
        lambda w: w[0].zero_(),
    ],
)
def test_every_change_counts_one(change):
    w = leaf(2, 2)

    with no_grad():
        change(w)

    assert w._version == 1


def test_writing_to_the_array_bypasses_the_counter():
    w = leaf(2)
    result = w**2

    w.array[0] = 3
    result.sum().backward()

    assert w._version == 0
    assert w.grad.tolist() == [6, 2]


PARAMETER = randn(5, 3)
SAVES = {
    "w@param": lambda w: w @ leaf(5, 3),
    "w**2": lambda w: w**2,
    "w.norm()": lambda w: w.norm(),
    "w.abs()": lambda w: w.abs(),
    "w.t()**2": lambda w: w.t() ** 2,
    "w[1:]**2": lambda w: w[1:] ** 2,
    "w.detach()*param": lambda w: w.detach() * leaf(3, 5),
    "linear(param, w)": lambda w: ops.linear(leaf(2, 5), w),
    "w*w": lambda w: w * w,
    "param/w": lambda w: leaf(5) / w,
    "w.log()": lambda w: w.log(),
    "w.prod()": lambda w: w.prod(),
    "w.max()": lambda w: w.max(),
    "logsigmoid(w)": lambda w: ops.logsigmoid(w),
    "mse_loss(w)": lambda w: ops.mse_loss(w, ones(3, 5)),
    "stack([w])**2 of views": lambda w: stack([w[0] ** 2]),
}
SAVES_NOT = {
    "w*2": lambda w: w * 2,
    "w+1": lambda w: w + 1,
    "w-param": lambda w: w - leaf(5),
    "w/2": lambda w: w / 2,
    "2/w": lambda w: 2 / w,
    "-w": lambda w: -w,
    "w*const": lambda w: w * ones(5),
    "w.sum()": lambda w: w.sum(),
    "w.mean(0)": lambda w: w.mean(0),
    "w@const": lambda w: w @ PARAMETER,
    "linear(const, w)": lambda w: ops.linear(ones(2, 5), w),
    "w[0]": lambda w: w[0],
    "w[ids]": lambda w: w[[0, 2]],
    "w.clone()**2": lambda w: w.clone() ** 2,
    "w.sigmoid()": lambda w: w.sigmoid(),
    "w.exp()": lambda w: w.exp(),
    "w.tanh()": lambda w: w.tanh(),
    "w.sqrt()": lambda w: w.sqrt(),
    "w.relu()": lambda w: w.relu(),
    "w.softmax(1)": lambda w: w.softmax(1),
    "w.log_softmax(1)": lambda w: w.log_softmax(1),
    "w.max(1)": lambda w: w.max(1)[0],
    "cat([w, w])": lambda w: cat([w, w]),
    "w.double()": lambda w: w.double(),
    "w.detach()": lambda w: w.detach() + w,
    "cross_entropy(w)": lambda w: ops.cross_entropy(w, tensor([0, 1, 2])),
}


@pytest.mark.parametrize("name", SAVES)
def test_an_operation_that_saved_its_input_refuses_a_changed_one(name):
    w = leaf(3, 5)
    result = SAVES[name](w).sum()
    with no_grad():
        w.mul_(2)

    with pytest.raises(RuntimeError, match="is at version 1; expected version 0 instead"):
        result.backward()


@pytest.mark.parametrize("name", SAVES_NOT)
def test_an_operation_that_did_not_save_its_input_lets_it_change(name):
    def gradient(change):
        w = leaf(3, 5)
        result = SAVES_NOT[name](w).sum()
        if change:
            with no_grad():
                w.mul_(2)
        result.backward()
        return w.grad.tolist()

    assert gradient(change=True) == gradient(change=False)


def test_the_message_names_type_shape_and_both_versions():
    w = leaf(3, 5)
    with no_grad():
        w.mul_(2)
        w.mul_(2)
    result = w @ leaf(5, 7)
    with no_grad():
        w.mul_(2)

    with pytest.raises(RuntimeError) as caught:
        result.sum().backward()

    assert str(caught.value) == (
        "one of the variables needed for gradient computation has been modified by an inplace "
        "operation: [torch.FloatTensor [3, 5]] is at version 3; expected version 2 instead. Hint: "
        "enable anomaly detection to find the operation that failed to compute its gradient, with "
        "torch.autograd.set_detect_anomaly(True, check_nan=False)."
    )


def test_the_message_says_where_a_saved_view_came_from():
    w = leaf(3, 5)
    result = w[1:] ** 2
    with no_grad():
        w.mul_(2)

    with pytest.raises(
        RuntimeError, match=r"Tensor \[2, 5\]\], which is output 0 of AsStrided, is"
    ):
        result.sum().backward()


def test_changing_an_index_after_its_use_is_refused():
    ids = tensor([0, 1])
    result = leaf(3, 5)[ids]
    ids.add_(1)

    with pytest.raises(RuntimeError, match=r"\[torch.LongTensor \[2\]\] is at version 1; expected"):
        result.sum().backward()


def test_changing_a_saved_output_is_refused():
    result = leaf(3, 5).exp()
    result.mul_(2)

    with pytest.raises(RuntimeError, match="which is output 0 of Exp, is at version 1"):
        result.sum().backward()
