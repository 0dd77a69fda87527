"""Every differentiable operation, written once for mmembed and torch: `function(lib, *tensors)`.

`lib` has the functions of NAMES, and `F`, those of torch.nn.functional.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from mmembed import autograd

from .case import BROADCAST, MATRIX, ONE, PAIR, PRODUCTS, Case, classes, constant
from .layer_cases import MASK, attentions, einsums, layer_norms

NAMES = ("bmm", "cat", "einsum", "erf", "masked_fill", "stack", "where")
"""The functions of cases that torch has at its top, and this package too."""

OURS = SimpleNamespace(
    F=autograd.ops, tensor=autograd.tensor, **{name: getattr(autograd, name) for name in NAMES}
)


WEIGHT = np.array([0.5, 2.0, 1.0, 0.25])
TARGETS = np.array([1, 3, 0])
IDS = np.array([[0, 1], [1, 1]])


def _masked(lib, x, value):
    return lib.masked_fill(x, lib.tensor(MASK), value)


def _set_row(lib, x, y):
    z = x * 1
    z[1] = y
    return z * x


def _set_rows(lib, x, y):
    z = x * 1
    z[classes(lib, [2, 0])] = y
    return z * x


def _in_place(change):
    def function(lib, x, y):
        z = x * 1
        change(z, y)
        return z * x

    return function


CASES = {
    "add": Case(lambda lib, a, b: a + b, BROADCAST, PAIR),
    "sub": Case(lambda lib, a, b: a - b, BROADCAST, PAIR),
    "mul": Case(lambda lib, a, b: a * b, BROADCAST, PAIR),
    "div": Case(lambda lib, a, b: a / b, BROADCAST, ("real", "positive")),
    "pow": Case(lambda lib, a, b: a**b, BROADCAST, ("positive", "small")),
    "add scalar": Case(lambda lib, a: a + 2.5, ONE),
    "scalar minus": Case(lambda lib, a: 2.5 - a, ONE),
    "mul scalar": Case(lambda lib, a: a * 2.5, ONE),
    "div scalar": Case(lambda lib, a: a / 2.5, ONE),
    "scalar div": Case(lambda lib, a: 2.5 / a, ONE, ("positive",)),
    "square": Case(lambda lib, a: a**2, ONE),
    "pow zero": Case(lambda lib, a: a**0, ONE),
    "pow one": Case(lambda lib, a: a**1, ONE, ("zeros",)),
    "pow fraction": Case(lambda lib, a: a**-1.5, ONE, ("positive",)),
    "scalar pow": Case(lambda lib, a: 2.0**a, ONE),
    "neg": Case(lambda lib, a: -a, ONE),
    "same operand": Case(lambda lib, a: a * a - a / (a * a + 1), ONE),
    "exp": Case(lambda lib, a: a.exp(), ONE),
    "log": Case(lambda lib, a: a.log(), ONE, ("positive",)),
    "sqrt": Case(lambda lib, a: a.sqrt(), ONE, ("positive",)),
    "abs": Case(lambda lib, a: a.abs(), ONE, ("apart",)),
    "tanh": Case(lambda lib, a: a.tanh(), ONE),
    "sigmoid": Case(lambda lib, a: a.sigmoid(), ONE),
    "logsigmoid": Case(lambda lib, a: lib.F.logsigmoid(a), ONE),
    "relu": Case(lambda lib, a: a.relu(), ONE, ("apart",)),
    "reciprocal": Case(lambda lib, a: a.reciprocal(), ONE, ("positive",)),
    "sum": Case(lambda lib, a: a.sum(), ONE),
    "sum dim": Case(lambda lib, a: a.sum(0), ONE),
    "sum dims keepdim": Case(lambda lib, a: a.sum((0, -1), keepdim=True), MATRIX),
    "mean": Case(lambda lib, a: a.mean(), ONE),
    "mean dim": Case(lambda lib, a: a.mean(-1, keepdim=True), ONE),
    "mean dims": Case(lambda lib, a: a.mean((0, 1)), MATRIX),
    "prod": Case(lambda lib, a: a.prod(), ONE),
    "prod with zeros": Case(lambda lib, a: a.prod(), ONE, ("zeros",)),
    "prod dim": Case(lambda lib, a: a.prod(0), ONE, ("zeros",)),
    "prod dim keepdim": Case(lambda lib, a: a.prod(-1, keepdim=True), ONE, ("zeros",)),
    "norm": Case(lambda lib, a: a.norm(), ONE),
    "norm 1": Case(lambda lib, a: a.norm(p=1), ONE, ("apart",)),
    "norm 3": Case(lambda lib, a: a.norm(p=3), ONE),
    "norm 1.5": Case(lambda lib, a: a.norm(p=1.5, dim=-1), ONE, ("apart",)),
    "norm 0.5": Case(lambda lib, a: a.norm(p=0.5), ONE, ("apart",)),
    "norm -1": Case(lambda lib, a: a.norm(p=-1.0, dim=0), ONE, ("apart",)),
    "norm 0": Case(lambda lib, a: a.norm(p=0), ONE, ("apart",)),
    "norm inf": Case(lambda lib, a: a.norm(p=float("inf")), MATRIX, ("apart",)),
    "norm -inf": Case(lambda lib, a: a.norm(p=-float("inf"), dim=-1), MATRIX, ("apart",)),
    "norm dim": Case(lambda lib, a: a.norm(dim=-1, keepdim=True), ONE),
    "max": Case(lambda lib, a: a.max(), MATRIX, ("apart",)),
    "min": Case(lambda lib, a: a.min(), MATRIX, ("apart",)),
    "max dim": Case(lambda lib, a: a.max(0)[0], MATRIX, ("apart",)),
    "min dim": Case(lambda lib, a: a.min(-1, keepdim=True)[0], MATRIX, ("apart",)),
    "softmax": Case(lambda lib, a: a.softmax(-1), ONE),
    "softmax first": Case(lambda lib, a: a.softmax(0), ONE),
    "log_softmax": Case(lambda lib, a: a.log_softmax(-1), ONE),
    "log_softmax first": Case(lambda lib, a: a.log_softmax(0), ONE),
    "t": Case(lambda lib, a: a.t(), (((3, 4),), ((3,),), ((),))),
    "T": Case(lambda lib, a: a.T, (((3, 4),), ((0, 2),))),
    "mT": Case(lambda lib, a: a.mT, MATRIX),
    "transpose": Case(lambda lib, a: a.transpose(0, -1), ONE),
    "permute": Case(lambda lib, a: a.permute(2, 0, 1), (((2, 3, 4),),)),
    "reshape": Case(lambda lib, a: a.reshape(-1), ONE),
    "reshape copy": Case(lambda lib, a: a.mT.reshape(-1), MATRIX),
    "view": Case(lambda lib, a: a.view(4, -1), MATRIX),
    "flatten": Case(lambda lib, a: a.flatten(), ONE),
    "unsqueeze": Case(lambda lib, a: a.unsqueeze(-1), ONE),
    "squeeze": Case(lambda lib, a: a.squeeze(), (((1, 3, 1),), ((3,),), ((),))),
    "squeeze dim": Case(lambda lib, a: a.squeeze(0), (((1, 3, 1),), ((3,),), ((),))),
    "squeeze dims": Case(lambda lib, a: a.squeeze((0, -1)), (((1, 3, 1),), ((3, 1),))),
    "clone": Case(lambda lib, a: a.clone() * a, ONE),
    "cat": Case(lambda lib, a, b: lib.cat([a, b, a]), (((3, 2), (1, 2)), ((0,), (3,))), PAIR),
    "cat last": Case(lambda lib, a, b: lib.cat([a, b], -1), (((3, 2), (3, 1)),), PAIR),
    "stack": Case(lambda lib, a, b: lib.stack([a, b, a]), (((3, 2), (3, 2)), ((), ())), PAIR),
    "stack last": Case(lambda lib, a, b: lib.stack([a, b], -1), (((3, 2), (3, 2)),), PAIR),
    "matmul": Case(lambda lib, a, b: a @ b, PRODUCTS, PAIR),
    "matmul of views": Case(
        lambda lib, a, b: a.mT @ b.mT, (((3, 4), (2, 3)), ((5, 3, 4), (5, 2, 3))), PAIR
    ),
    "bmm": Case(
        lambda lib, a, b: lib.bmm(a, b),
        (((2, 3, 4), (2, 4, 5)), ((0, 3, 4), (0, 4, 5)), ((2, 3, 0), (2, 0, 5))),
        PAIR,
    ),
    "bmm of views": Case(lambda lib, a, b: a.mT.bmm(b.mT), (((2, 4, 3), (2, 5, 4)),), PAIR),
    "einsum of lists": Case(
        lambda lib, a, b: lib.einsum(a, [..., 0, 1], b, [1, 51], [51, ...]),
        (((2, 3, 4), (4, 5)),),
        PAIR,
    ),
    "einsum of lists without output": Case(
        lambda lib, a, b: lib.einsum(a, [30, 1], b, [1, 2]), (((3, 4), (4, 5)),), PAIR
    ),
    "einsum of one operand twice": Case(lambda lib, a: lib.einsum("ij,kj", a, a), (((3, 4),),)),
    "erf": Case(lambda lib, a: a.erf() + lib.erf(4 * a), ONE),
    "gelu": Case(lambda lib, a: lib.F.gelu(a), ONE),
    "gelu tanh": Case(lambda lib, a: lib.F.gelu(a, approximate="tanh"), ONE),
    "where": Case(lambda lib, a, b: lib.where(a * b > 0, a, b), BROADCAST, ("apart", "apart")),
    "where of three shapes": Case(
        lambda lib, a, b: lib.where(lib.tensor(MASK), a, b),
        (((3, 1), (4,)), ((2, 3, 4), ()), ((1, 4), (5, 1, 1))),
        PAIR,
    ),
    "where scalar": Case(lambda lib, a: lib.where(a > 0, a, 2), ONE, ("apart",)),
    "scalar where": Case(lambda lib, a: a.where(a > 0, -0.5), ONE, ("apart",)),
    "masked_fill": Case(
        lambda lib, a: _masked(lib, a, -2.5) * a, (((3, 4),), ((4,),), ((2, 3, 4),), ((),))
    ),
    "masked_fill with a tensor": Case(_masked, (((3, 4), ()), ((2, 1, 4), ())), PAIR),
    "dropout of none": Case(lambda lib, a: lib.F.dropout(a, 0.0) * a, ONE),
    "dropout of all": Case(lambda lib, a: lib.F.dropout(a, 1.0) * a, ONE),
    "dropout when not training": Case(lambda lib, a: lib.F.dropout(a, 0.5, False) * a, ONE),
    "linear": Case(
        lambda lib, a, w, b: lib.F.linear(a, w, b),
        (((5, 3), (2, 3), (2,)), ((4, 5, 3), (2, 3), (2,)), ((3,), (2, 3), (2,))),
        ("real", "real", "real"),
    ),
    "index int": Case(lambda lib, a: a[-1], MATRIX),
    "index slice": Case(lambda lib, a: a[1:, ::2], MATRIX),
    "index none": Case(lambda lib, a: a[None, ..., None, 1], MATRIX),
    "index all": Case(lambda lib, a: a[...], ONE),
    "index ids": Case(lambda lib, a: a[classes(lib, IDS)], MATRIX),
    "index two ids": Case(
        lambda lib, a: a[classes(lib, [0, 1, 0]), classes(lib, [2, 2, 2])], MATRIX
    ),
    "index mixed": Case(lambda lib, a: a[0, :, classes(lib, [3, 1, 3])], (((2, 3, 4),),)),
    "index mixed last": Case(lambda lib, a: a[1:, classes(lib, [3, 1, 3])], (((3, 4),),)),
    "index mask": Case(
        lambda lib, a: a[lib.tensor(np.arange(12).reshape(3, 4) % 3 == 0)], (((3, 4),),)
    ),
    "index row mask": Case(
        lambda lib, a: a[lib.tensor(np.array([True, False, True]))], (((3, 4),),)
    ),
    "index true": Case(lambda lib, a: a[True], ONE),
    "set row": Case(_set_row, (((3, 2), (2,)), ((3, 2), ()), ((3, 2), (1,))), PAIR),
    "set rows": Case(_set_rows, (((3, 2), (2, 2)), ((3, 2), (2,)), ((3, 2), ())), PAIR),
    "add_": Case(_in_place(lambda z, y: z.add_(y)), BROADCAST[:2], PAIR),
    "sub_": Case(_in_place(lambda z, y: z.sub_(y)), BROADCAST[:2], PAIR),
    "mul_": Case(_in_place(lambda z, y: z.mul_(y)), BROADCAST[:2], PAIR),
    "div_": Case(_in_place(lambda z, y: z.div_(y)), BROADCAST[:2], ("real", "positive")),
    "neg_": Case(_in_place(lambda z, y: z.neg_().mul_(y)), BROADCAST[:2], PAIR),
    "copy_": Case(_in_place(lambda z, y: z.copy_(y)), BROADCAST[:2], PAIR),
    "zero_": Case(_in_place(lambda z, y: z.zero_().add_(y)), BROADCAST[:2], PAIR),
    "relu_": Case(_in_place(lambda z, y: z.mul_(y).relu_()), BROADCAST[:2], ("apart", "apart")),
    "masked_fill_": Case(
        _in_place(lambda z, y: z.masked_fill_(y > 0, 2.0).mul_(y)), BROADCAST[:2], ("real", "apart")
    ),
    "fill_": Case(_in_place(lambda z, y: z.fill_(2.0).mul_(y)), BROADCAST[:2], PAIR),
    "mse_loss": Case(lambda lib, a, b: lib.F.mse_loss(a, b), BROADCAST[:1], PAIR),
    "mse_loss sum": Case(
        lambda lib, a, b: lib.F.mse_loss(a, b, reduction="sum"), BROADCAST[:1], PAIR
    ),
    "mse_loss none": Case(
        lambda lib, a, b: lib.F.mse_loss(a, b, reduction="none"), BROADCAST[:1], PAIR
    ),
}


def _losses():
    """Return the cases of losses whose targets are constants, crossed with their options."""
    for reduction in ("none", "mean", "sum"):
        for weighted in (False, True):
            for positive in (False, True):
                name = f"bce {reduction} weight={weighted} pos_weight={positive}"
                yield name, Case(_bce(reduction, weighted, positive), (((3, 4),), ((2, 3, 4),)))
            for smoothing in (0.0, 0.2):
                name = f"cross_entropy {reduction} weight={weighted} smoothing={smoothing}"
                yield name, Case(_cross_entropy(reduction, weighted, smoothing), (((3, 4),),))
                name = f"cross_entropy of probabilities {name[13:]}"
                yield (
                    name,
                    Case(
                        _probabilities(reduction, weighted, smoothing),
                        (((3, 4), (3, 4)), ((2, 4, 3), (2, 4, 3)), ((4,), (4,))),
                        PAIR,
                    ),
                )
            yield (
                f"nll_loss {reduction} weight={weighted}",
                Case(_nll(reduction, weighted), (((2, 4, 3),), ((4,),))),
            )


def _bce(reduction, weighted, positive):
    def function(lib, x):
        rng = np.random.default_rng(5)
        target = constant(lib, x, rng.random(tuple(x.shape)).round(1))
        weight = constant(lib, x, WEIGHT) if weighted else None
        pos_weight = constant(lib, x, WEIGHT[::-1].copy()) if positive else None
        return lib.F.binary_cross_entropy_with_logits(
            x, target, weight, reduction=reduction, pos_weight=pos_weight
        )

    return function


def _cross_entropy(reduction, weighted, smoothing):
    def function(lib, x):
        weight = constant(lib, x, WEIGHT) if weighted else None
        return lib.F.cross_entropy(
            x, classes(lib, TARGETS), weight, ignore_index=3, reduction=reduction,
            label_smoothing=smoothing,
        )  # fmt: skip

    return function


def _probabilities(reduction, weighted, smoothing):
    def function(lib, x, target):
        weight = constant(lib, x, WEIGHT) if weighted else None
        return lib.F.cross_entropy(
            x, target, weight, reduction=reduction, label_smoothing=smoothing
        )

    return function


def _nll(reduction, weighted):
    def function(lib, x):
        weight = constant(lib, x, WEIGHT) if weighted else None
        target = 2 if x.ndim == 1 else [[0, 1, -100], [3, 0, 0]]
        return lib.F.nll_loss(x, classes(lib, target), weight, reduction=reduction)

    return function


for _cases in (_losses, einsums, attentions, layer_norms):
    CASES.update(_cases())
