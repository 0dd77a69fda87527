"""Every refusal beside torch's: same class, and torch's text as the first part of ours."""

from __future__ import annotations

import copy
import operator
from types import SimpleNamespace

import numpy as np
import pytest

from mmembed import autograd

torch = pytest.importorskip("torch")

OURS = SimpleNamespace(
    name="mmembed",
    m=autograd,
    F=autograd.ops,
    no_grad=autograd.no_grad,
    float32=np.float32,
    float64=np.float64,
    int64=np.int64,
    bool=np.bool_,
)
TORCH = SimpleNamespace(
    name="torch",
    m=torch,
    F=torch.nn.functional,
    no_grad=torch.no_grad,
    float32=torch.float32,
    float64=torch.float64,
    int64=torch.int64,
    bool=torch.bool,
)


def leaf(lib, *shape):
    return lib.m.ones(*shape, requires_grad=True)


def ids(lib, *values):
    return lib.m.tensor(values, dtype=lib.int64)


def set_item(tensor, index, value):
    tensor[index] = value


def saved_then_changed(operation, make=leaf):
    """Record `operation` on a leaf, change the leaf, and run backward."""

    def run(lib):
        w = make(lib, 3, 5)
        result = operation(lib, w)
        with lib.no_grad():
            w.mul_(2)
        result.sum().backward()

    return run


def twice(operation):
    def run(lib):
        result = operation(lib, leaf(lib, 3, 5)).sum()
        result.backward()
        result.backward()

    return run


def quiet_row(lib, tensor):
    with lib.no_grad():
        return tensor[0]


def changed_index(lib):
    i = ids(lib, 0, 1)
    result = leaf(lib, 3, 5)[i]
    i.add_(1)
    result.sum().backward()


def changed_output(lib):
    result = leaf(lib, 3, 5).exp()
    result.mul_(2)
    result.sum().backward()


def changed_nonleaf(lib):
    e = leaf(lib, 3, 5) * 2
    result = e**2
    with lib.no_grad():
        e.add_(1)
    result.sum().backward()


def attention(*shapes, of="float32", mask=None, dtype="float32", **options):
    """Run attention over ones of the shapes, with a mask of ones if its shape is given."""

    def run(lib):
        inputs = [lib.m.ones(*shape, dtype=getattr(lib, of)) for shape in shapes]
        given = dict(options)
        if mask is not None:
            given["attn_mask"] = lib.m.ones(*mask, dtype=getattr(lib, dtype))
        return lib.F.scaled_dot_product_attention(*inputs, **given)

    return run


EXACT = {
    "backward of a matrix": lambda lib: leaf(lib, 2, 2).backward(),
    "backward of an empty tensor": lambda lib: leaf(lib, 0).backward(),
    "backward of a constant": lambda lib: lib.m.ones(1).backward(),
    "backward of a constant vector": lambda lib: lib.m.ones(3).backward(),
    "backward with another shape": lambda lib: leaf(lib, 3, 2).backward(lib.m.ones(2)),
    "backward with an array": lambda lib: leaf(lib, 2, 2).backward(np.ones((2, 2))),
    "backward twice": twice(lambda lib, w: w * 2),
    "backward twice, output saved": twice(lambda lib, w: w.exp()),
    "backward twice, ids saved": twice(lambda lib, w: w[ids(lib, 0, 1)]),
    "square, then changed": saved_then_changed(lambda lib, w: w**2),
    "product, then changed": saved_then_changed(lambda lib, w: w @ leaf(lib, 5, 3)),
    "abs, then changed": saved_then_changed(lambda lib, w: w.abs()),
    "norm, then changed": saved_then_changed(lambda lib, w: w.norm()),
    "view t, then changed": saved_then_changed(lambda lib, w: w.t() ** 2),
    "view row, then changed": saved_then_changed(lambda lib, w: w[1] ** 2),
    "view rows, then changed": saved_then_changed(lambda lib, w: w[1:] ** 2),
    "view reshaped, then changed": saved_then_changed(lambda lib, w: w.reshape(15) ** 2),
    "detached factor, then changed": saved_then_changed(lambda lib, w: w.detach() * leaf(lib, 5)),
    "index, then changed": changed_index,
    "output, then changed": changed_output,
    "nonleaf, then changed": changed_nonleaf,
    "add_ to a leaf": lambda lib: leaf(lib, 2).add_(1),
    "+= on a leaf": lambda lib: operator.iadd(leaf(lib, 2), 1),
    "copy_ to a leaf": lambda lib: leaf(lib, 2).copy_(lib.m.ones(2)),
    "zero_ of a leaf": lambda lib: leaf(lib, 2).zero_(),
    "normal_ of a leaf": lambda lib: leaf(lib, 2).normal_(),
    "ids of a leaf set": lambda lib: set_item(leaf(lib, 2), ids(lib, 0), 1.0),
    "all of a leaf set": lambda lib: set_item(leaf(lib, 2), slice(None), 1.0),
    "row of a leaf set": lambda lib: set_item(leaf(lib, 2, 2), 0, 1.0),
    "rows of a leaf set": lambda lib: set_item(leaf(lib, 2, 2), slice(1, None), 1.0),
    "row of a leaf changed": lambda lib: leaf(lib, 2, 2)[0].add_(1),
    "transposed leaf changed": lambda lib: leaf(lib, 2, 2).t().mul_(2),
    "view made under no_grad changed": lambda lib: quiet_row(lib, leaf(lib, 2, 2)).add_(1),
    "view made under no_grad of a nonleaf": lambda lib: quiet_row(lib, leaf(lib, 2) * 1).add_(1),
    "add_ of a larger tensor": lambda lib: lib.m.ones(3).add_(lib.m.ones(2, 3)),
    "add_ to one element": lambda lib: lib.m.ones(1).add_(lib.m.ones(3)),
    "copy_ of a larger tensor": lambda lib: lib.m.ones(3).copy_(lib.m.ones(2, 3)),
    "requires_grad off a nonleaf": lambda lib: setattr(leaf(lib, 2) * 2, "requires_grad", False),
    "requires_grad on a nonleaf": lambda lib: setattr(leaf(lib, 2) * 2, "requires_grad", True),
    "requires_grad_ off a nonleaf": lambda lib: (leaf(lib, 2) * 2).requires_grad_(False),
    "requires_grad of ints": lambda lib: setattr(ids(lib, 1), "requires_grad", True),
    "requires_grad_ of ints": lambda lib: ids(lib, 1).requires_grad_(),
    "ints made with requires_grad": lambda lib: lib.m.tensor([1], requires_grad=True),
    "grad of another shape": lambda lib: setattr(lib.m.ones(4, 2), "grad", lib.m.ones(3, 2)),
    "grad that is an array": lambda lib: setattr(lib.m.ones(2), "grad", np.ones(2)),
    "grad that is the tensor": lambda lib: (lambda w: setattr(w, "grad", w))(leaf(lib, 2)),
    "numpy of a leaf": lambda lib: leaf(lib, 2).numpy(),
    "asarray of a leaf": lambda lib: np.asarray(leaf(lib, 2)),
    "dlpack of a leaf": lambda lib: leaf(lib, 2).__dlpack__(),
    "item of two": lambda lib: lib.m.ones(2).item(),
    "float of two": lambda lib: float(lib.m.ones(2)),
    "int of none": lambda lib: int(lib.m.ones(0)),
    "bool of two": lambda lib: bool(lib.m.ones(2)),
    "bool of none": lambda lib: bool(lib.m.ones(0)),
    "index by a float": lambda lib: [1, 2][lib.m.ones(1)],
    "index by two": lambda lib: [1, 2][ids(lib, 0, 1)],
    "len of a scalar": lambda lib: len(lib.m.tensor(1.0)),
    "iteration over a scalar": lambda lib: iter(lib.m.tensor(1.0)),
    "deepcopy of a nonleaf": lambda lib: copy.deepcopy(leaf(lib, 2) * 2),
    "size of no dimension": lambda lib: lib.m.ones(3, 2).size(5),
    "sum along no dimension": lambda lib: lib.m.ones(3, 2).sum(-3),
    "sum of a scalar along 1": lambda lib: lib.m.tensor(1.0).sum(1),
    "sum along one twice": lambda lib: lib.m.ones(3, 2).sum((0, -2)),
    "softmax along no dimension": lambda lib: lib.m.ones(2).softmax(3),
    "max of nothing": lambda lib: lib.m.ones(0).max(),
    "max along nothing": lambda lib: lib.m.ones(0, 3).max(0),
    "argmax of nothing": lambda lib: lib.m.ones(0).argmax(),
    "mT of a vector": lambda lib: lib.m.ones(2).mT,
    "transposed along no dimension": lambda lib: lib.m.ones(2, 2).transpose(0, 2),
    "permuted short": lambda lib: lib.m.ones(2, 2).permute(0),
    "permuted twice": lambda lib: lib.m.ones(2, 2).permute(0, -2),
    "permuted along no dimension": lambda lib: lib.m.ones(2, 2).permute(0, 2),
    "unsqueeze at no dimension": lambda lib: lib.m.ones(2).unsqueeze(3),
    "squeeze of no dimension": lambda lib: lib.m.ones(2).squeeze(3),
    "reshape to another size": lambda lib: lib.m.ones(2, 3).reshape(4),
    "reshape to a fraction": lambda lib: lib.m.ones(2, 3).reshape(-1, 4),
    "reshape to two unknowns": lambda lib: lib.m.ones(2, 3).reshape(-1, -1),
    "view of a transposed": lambda lib: lib.m.ones(2, 3).t().view(6),
    "cat of nothing": lambda lib: lib.m.cat([]),
    "cat of ranks": lambda lib: lib.m.cat([lib.m.ones(2), lib.m.ones(2, 2)]),
    "cat of sizes": lambda lib: lib.m.cat([lib.m.ones(2, 3), lib.m.ones(2, 2)]),
    "stack of nothing": lambda lib: lib.m.stack([]),
    "stack of sizes": lambda lib: lib.m.stack([lib.m.ones(2), lib.m.ones(3)]),
    "product of matrices": lambda lib: lib.m.ones(3, 2) @ lib.m.ones(3, 2),
    "product with a vector": lambda lib: lib.m.ones(3, 2) @ lib.m.ones(3),
    "product of a vector": lambda lib: lib.m.ones(3) @ lib.m.ones(2, 3),
    "product of vectors": lambda lib: lib.m.ones(3) @ lib.m.ones(2),
    "product of stacks with a matrix": lambda lib: lib.m.ones(2, 3, 2) @ lib.m.ones(3, 2),
    "product of a scalar": lambda lib: lib.m.tensor(1.0) @ lib.m.ones(3),
    "einsum without operands": lambda lib: lib.m.einsum("ij"),
    "einsum of a number": lambda lib: lib.m.einsum(3, lib.m.ones(2)),
    "einsum with a digit": lambda lib: lib.m.einsum("i1->i", lib.m.ones(2, 2)),
    "einsum with a digit in the output": lambda lib: lib.m.einsum("ij->i1", lib.m.ones(2, 2)),
    "einsum with two arrows": lambda lib: lib.m.einsum("ij->i->j", lib.m.ones(2, 2)),
    "einsum with a sign": lambda lib: lib.m.einsum("i, $", lib.m.ones(2), lib.m.ones(2)),
    "einsum with a dot": lambda lib: lib.m.einsum("i.j", lib.m.ones(2, 2)),
    "einsum with a dot in the output": lambda lib: lib.m.einsum("ij->i.", lib.m.ones(2, 2)),
    "einsum with two ellipses": lambda lib: lib.m.einsum("...i...", lib.m.ones(2, 2)),
    "einsum with two in the output": lambda lib: lib.m.einsum("...->......", lib.m.ones(2, 2)),
    "einsum of few": lambda lib: lib.m.einsum("i,j", lib.m.ones(2)),
    "einsum of many": lambda lib: lib.m.einsum("i", lib.m.ones(2), lib.m.ones(2)),
    "einsum of too few dimensions": lambda lib: lib.m.einsum("ij", lib.m.ones(2)),
    "einsum of too many dimensions": lambda lib: lib.m.einsum("i", lib.m.ones(2, 2)),
    "einsum of too few for an ellipsis": lambda lib: lib.m.einsum("ij...", lib.m.ones(2)),
    "einsum with an output twice": lambda lib: lib.m.einsum("ij->ii", lib.m.ones(2, 2)),
    "einsum with an unknown output": lambda lib: lib.m.einsum("ij->k", lib.m.ones(2, 2)),
    "einsum of sizes": lambda lib: lib.m.einsum("ij,jk", lib.m.ones(2, 3), lib.m.ones(2, 3)),
    "einsum of a diagonal": lambda lib: lib.m.einsum("ii", lib.m.ones(2, 3)),
    "einsum of a flat diagonal": lambda lib: lib.m.einsum("ii", lib.m.ones(1, 3)),
    "einsum of ellipses": lambda lib: lib.m.einsum("...,...", lib.m.ones(2), lib.m.ones(3)),
    "einsum of a large subscript": lambda lib: lib.m.einsum(lib.m.ones(2, 3), [0, 52]),
    "bmm of a matrix": lambda lib: lib.m.bmm(lib.m.ones(2, 3), lib.m.ones(2, 3)),
    "bmm with a matrix": lambda lib: lib.m.bmm(lib.m.ones(2, 3, 2), lib.m.ones(2, 3)),
    "bmm of sizes": lambda lib: lib.m.bmm(lib.m.ones(2, 3, 2), lib.m.ones(2, 3, 3)),
    "bmm of stacks": lambda lib: lib.m.bmm(lib.m.ones(2, 3, 2), lib.m.ones(3, 2, 3)),
    "product of stacks of sizes": lambda lib: lib.m.ones(5, 2, 3, 4) @ lib.m.ones(2, 5, 3),
    "layer_norm over nothing": lambda lib: lib.F.layer_norm(lib.m.ones(2, 3), ()),
    "layer_norm over a number": lambda lib: lib.F.layer_norm(lib.m.ones(2, 3), 3),
    "layer_norm over another size": lambda lib: lib.F.layer_norm(lib.m.ones(2, 3), (4,)),
    "layer_norm over too much": lambda lib: lib.F.layer_norm(lib.m.ones(2, 3), (5, 2, 3)),
    "layer_norm with a wide weight": lambda lib: lib.F.layer_norm(
        lib.m.ones(2, 3), (3,), lib.m.ones(4)
    ),
    "layer_norm with a wide bias": lambda lib: lib.F.layer_norm(
        lib.m.ones(2, 3), (3,), lib.m.ones(3), lib.m.ones(4)
    ),
    "layer_norm of ints": lambda lib: lib.F.layer_norm(ids(lib, 1, 2), (2,)),
    "layer_norm with a double weight": lambda lib: lib.F.layer_norm(
        lib.m.ones(2, 3), (3,), lib.m.ones(3, dtype=lib.float64)
    ),
    "layer_norm of doubles": lambda lib: lib.F.layer_norm(
        lib.m.ones(2, 3, dtype=lib.float64), (3,), lib.m.ones(3)
    ),
    "layer_norm, then changed": saved_then_changed(lambda lib, w: lib.F.layer_norm(w, (5,))),
    "dropout of too much": lambda lib: lib.F.dropout(lib.m.ones(3), 1.5),
    "dropout of less than nothing": lambda lib: lib.F.dropout(lib.m.ones(3), -0.5),
    "dropout of ints": lambda lib: lib.F.dropout(ids(lib, 1, 2)),
    "gelu by another way": lambda lib: lib.F.gelu(lib.m.ones(3), approximate="x"),
    "gelu of ints": lambda lib: lib.F.gelu(ids(lib, 1, 2)),
    "gelu, then changed": saved_then_changed(lambda lib, w: lib.F.gelu(w)),
    "where floats are": lambda lib: lib.m.where(lib.m.ones(3), lib.m.ones(3), 0),
    "masked_fill where floats are": lambda lib: lib.m.ones(3).masked_fill(lib.m.ones(3), 1),
    "masked_fill where ints are": lambda lib: lib.m.ones(1).masked_fill(ids(lib, 1), 1),
    "masked_fill with a vector": lambda lib: lib.m.ones(3).masked_fill(
        lib.m.ones(3) > 0, lib.m.ones(3)
    ),
    "masked_fill_ to a larger shape": lambda lib: lib.m.ones(3).masked_fill_(
        lib.m.ones(2, 3) > 0, 1
    ),
    "masked_fill_ of a leaf": lambda lib: leaf(lib, 3).masked_fill_(lib.m.ones(3) > 0, 1),
    "relu_ of a leaf": lambda lib: leaf(lib, 3).relu_(),
    "attention of a vector": attention((3,), (2, 3), (2, 3)),
    "attention of sizes": attention((2, 3, 4), (2, 3, 5), (2, 3, 4)),
    "attention of other values": attention((2, 3, 4), (2, 5, 4), (2, 3, 4)),
    "attention with two masks": attention(*(((3, 4),) * 3), mask=(3, 3), is_causal=True),
    "attention with a mask of ints": attention(*(((3, 4),) * 3), mask=(3, 3), dtype="int64"),
    "attention with a mask of doubles": attention(*(((3, 4),) * 3), mask=(3, 3), dtype="float64"),
    "attention with much dropout": attention(*(((3, 4),) * 3), dropout_p=1.5),
    "attention of ints": attention(*(((2, 3, 4),) * 3), of="int64"),
    "attention of two dtypes": lambda lib: lib.F.scaled_dot_product_attention(
        lib.m.ones(2, 3), lib.m.ones(2, 3, dtype=lib.float64), lib.m.ones(2, 3)
    ),
    "index out of range": lambda lib: lib.m.ones(3, 2)[3],
    "second index out of range": lambda lib: lib.m.ones(3, 2)[0, 2],
    "negative index out of range": lambda lib: lib.m.ones(3, 2)[-4],
    "id out of range": lambda lib: lib.m.ones(3, 2)[ids(lib, 3)],
    "id out of range set": lambda lib: set_item(lib.m.ones(3, 2), ids(lib, 3), 1.0),
    "too many indices": lambda lib: lib.m.ones(3, 2)[0, 0, 0],
    "value of another shape": lambda lib: set_item(lib.m.ones(3, 2), ids(lib, 0), lib.m.ones(3)),
    "arange without steps": lambda lib: lib.m.arange(0, 3, 0),
    "arange backwards": lambda lib: lib.m.arange(5, 0),
    "randint of nothing": lambda lib: lib.m.randint(0, 0, (2,)),
    "unequal lists": lambda lib: lib.m.tensor([[1, 2], [3]]),
    "index by a Python float": lambda lib: lib.m.ones(3, 2)[1.5],
    "classes of another batch": lambda lib: lib.F.nll_loss(lib.m.ones(3, 2), ids(lib, 0, 1)),
    "classes as floats": lambda lib: lib.F.cross_entropy(lib.m.ones(2, 3), lib.m.ones(2)),
    "several classes": lambda lib: lib.F.nll_loss(lib.m.ones(2, 3), ids(lib, 0, 1).reshape(2, 1)),
    "smoothing above 1": lambda lib: lib.F.cross_entropy(
        lib.m.ones(2, 2), ids(lib, 0, 1), label_smoothing=2
    ),
    "weights for other classes": lambda lib: lib.F.cross_entropy(
        lib.m.ones(2, 2), ids(lib, 0, 1), weight=lib.m.ones(3)
    ),
    "integer probabilities": lambda lib: lib.F.cross_entropy(
        lib.m.ones(2), lib.m.ones(2, dtype=lib.int64)
    ),
    "probabilities with ignore_index": lambda lib: lib.F.cross_entropy(
        lib.m.ones(2, 2), lib.m.ones(2, 2), ignore_index=1
    ),
    "spatial classes of another size": lambda lib: lib.F.cross_entropy(
        lib.m.ones(1, 2, 4), lib.m.ones(1, 5, dtype=lib.int64)
    ),
}  # fmt: skip
# The text about ellipses lacks a space in torch.
CLASS_ONLY = {"unequal lists", "einsum of ellipses"}

WITH_MORE = {
    "where shapes differ": lambda lib: lib.m.where(
        lib.m.ones(3) > 0, lib.m.ones(2), lib.m.ones(3)
    ),
    "where the condition is long": lambda lib: lib.m.where(
        lib.m.ones(2) > 0, lib.m.ones(3), lib.m.ones(3)
    ),
    "masked_fill of shapes": lambda lib: lib.m.ones(3).masked_fill(lib.m.ones(2) > 0, 1),
    "attention with a mask of another size": attention(*(((2, 3, 4),) * 3), mask=(2, 2)),
    "attention of unequal stacks": attention((2, 3, 4), (3, 3, 4), (3, 3, 4)),
    "attention of heads that do not divide": attention(
        (1, 4, 3, 8), *(((1, 3, 3, 8),) * 2), enable_gqa=True
    ),
    "from_numpy of a list": lambda lib: lib.m.from_numpy([1]),
    "sum of unequal vectors": lambda lib: lib.m.ones(3) + lib.m.ones(2),
    "product of unequal matrices": lambda lib: lib.m.ones(3, 2) * lib.m.ones(2, 3),
    "add_ of another shape": lambda lib: lib.m.ones(3).add_(lib.m.ones(2)),
    "copy_ of another shape": lambda lib: lib.m.ones(3).copy_(lib.m.ones(2)),
    "product of unequal stacks": lambda lib: lib.m.ones(2, 3, 2) @ lib.m.ones(3, 2, 3),
    "float added to ints": lambda lib: ids(lib, 1, 2).add_(1.5),
    "ints divided in place": lambda lib: ids(lib, 1, 2).div_(2),
    "int added to bools": lambda lib: lib.m.ones(2, dtype=lib.bool).add_(1),
    "t of a stack": lambda lib: lib.m.ones(2, 2, 2).t(),
    "cat of scalars": lambda lib: lib.m.cat([lib.m.tensor(1.0)]),
    "index by floats": lambda lib: lib.m.ones(3, 2)[lib.m.ones(1)],
    "mse of unequal vectors": lambda lib: lib.F.mse_loss(lib.m.ones(3), lib.m.ones(2)),
    "classes of a scalar": lambda lib: lib.F.nll_loss(lib.m.tensor(1.0), lib.m.tensor(1)),
    "unknown reduction": lambda lib: lib.F.mse_loss(lib.m.ones(3), lib.m.ones(3), reduction="x"),
    "bce of another shape": lambda lib: lib.F.binary_cross_entropy_with_logits(
        lib.m.ones(3, 2), lib.m.ones(3)
    ),
    "class too large": lambda lib: lib.F.cross_entropy(lib.m.ones(2, 2), ids(lib, 0, 2)),
    "class negative": lambda lib: lib.F.nll_loss(lib.m.ones(2, 2), ids(lib, -1, 0)),
}  # fmt: skip


def refusal(run, lib):
    """Return the exception that `run` raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the class is compared
        run(lib)
    return caught.value


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_message_is_torchs(name):
    theirs, ours = (refusal(EXACT[name], lib) for lib in (TORCH, OURS))

    assert isinstance(ours, type(theirs))
    if name not in CLASS_ONLY:
        assert str(ours) == str(theirs)


@pytest.mark.parametrize("name", WITH_MORE)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_message_begins_with_torchs_and_says_more(name):
    theirs, ours = (refusal(WITH_MORE[name], lib) for lib in (TORCH, OURS))

    assert isinstance(ours, type(theirs))
    assert str(ours).startswith(str(theirs).rstrip("."))
    assert len(str(ours)) > len(str(theirs))


def test_message_for_a_gradient_of_another_dtype_begins_with_torchs():
    def run(lib):
        lib.m.ones(2).grad = lib.m.ones(2, dtype=lib.float64)

    theirs, ours = (str(refusal(run, lib)) for lib in (TORCH, OURS))

    shared = theirs[: theirs.index(" You can set")]
    assert ours == shared + " Cast it with grad.to('float32')"
