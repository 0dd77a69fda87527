"""The cases of what layers are made of: einsum by its equations, attention, layer_norm."""

from __future__ import annotations

import numpy as np

from .case import Case, constant

MASK = np.array([[True, False, True, False], [False, False, True, True], [False] * 4])

EQUATIONS = {
    "i->i": ((3,),),
    "ij->": ((3, 4),),
    "ij->ji": ((3, 4),),
    "bA": ((3, 4),),
    "ii": ((3, 3),),
    "ii->i": ((3, 3), (1, 1), (0, 0)),
    "iji->j": ((3, 2, 3),),
    "iii->i": ((3, 3, 3),),
    "i...->...": ((3, 2, 4), (3,)),
    "...i->i": ((2, 3),),
    "i,i": ((3, 3), (1, 3), (3, 1), (0, 0)),
    "i,i->i": ((3, 3), (3, 1)),
    "i,j->ij": ((3, 2), (0, 2)),
    "i,j": ((3, 2),),
    " i j , j k -> k i ": (((2, 3), (3, 4)), ((2, 1), (3, 4)), ((2, 0), (0, 4))),
    "bij,bjk->bik": (((2, 3, 4), (2, 4, 5)), ((1, 3, 4), (2, 4, 5))),
    "bqhd,bkhd->bhqk": (((2, 3, 2, 4), (2, 5, 2, 4)),),
    "...ij,...jk->...ik": (((2, 3, 4), (4, 5)), ((5, 1, 3, 4), (2, 4, 5)), ((3, 4), (4, 5))),
    "i...,i...->...": (((3, 2), (3, 4, 2)), ((3,), (3, 4))),
    "ik,jkl->ij": (((2, 3), (4, 3, 5)),),
    "ijk,jl->il": (((2, 3, 4), (3, 5)),),
    "ii,ij->j": (((3, 3), (3, 2)),),
    "ij,jk,kl->il": (((2, 3), (3, 4), (4, 2)),),
    "bn,anm,bm->ba": (((2, 3), (4, 3, 5), (2, 5)),),
    "i,i,i->i": (((3,), (1,), (3,)),),
    "i,j,k,l->lji": (((2,), (3,), (4,), (2,)),),
}
"""Equations, and shapes for them: of one operand each, or of several."""


def einsums():
    """Return a case for each equation."""
    for equation, given in EQUATIONS.items():
        count = equation.count(",") + 1
        shapes = given
        if count == 1:
            shapes = tuple((shape,) for shape in given)
        elif not isinstance(given[0][0], tuple):
            shapes = tuple(tuple((size,) for size in sizes) for sizes in given)
        yield (
            f"einsum {equation}",
            Case(
                lambda lib, *operands, equation=equation: lib.einsum(equation, *operands),
                shapes,
                ("real",) * count,
            ),
        )


def _attention(**options):
    def function(lib, q, k, v):
        mask = options.get("attn_mask")
        given = options
        if mask is not None:
            mask = np.asarray(mask)
            mask = lib.tensor(mask) if mask.dtype == bool else constant(lib, q, mask)
            given = {**options, "attn_mask": mask}
        return lib.F.scaled_dot_product_attention(q, k, v, **given)

    return function


def attentions():
    """Return the cases of attention: three queries, four keys, in several layouts."""
    shapes = (
        ((3, 2), (4, 2), (4, 5)),
        ((2, 3, 2), (2, 4, 2), (2, 4, 5)),
        ((2, 2, 3, 4), (2, 2, 4, 4), (2, 2, 4, 3)),
        ((2, 1, 3, 4), (2, 4, 4), (2, 4, 3)),
    )
    added = np.linspace(-2, 2, 12).reshape(3, 4)
    for name, options in {
        "plain": {},
        "causal": {"is_causal": True},
        "scaled": {"scale": 0.3},
        "bool mask": {"attn_mask": MASK | np.eye(3, 4, dtype=bool)},
        "mask of a whole row": {"attn_mask": MASK},
        "float mask": {"attn_mask": added},
        "float mask of a whole row": {"attn_mask": np.where(MASK, added, -np.inf)},
    }.items():
        yield f"attention {name}", Case(_attention(**options), shapes, ("real",) * 3)
    yield (
        "attention of shared heads",
        Case(
            _attention(enable_gqa=True),
            (((2, 4, 3, 2), (2, 2, 4, 2), (2, 2, 4, 5)),),
            ("real",) * 3,
        ),
    )


def layer_norms():
    """Return the cases of layer_norm: with and without weight and bias."""
    for name, dims, shapes in (
        ("last", 1, (((3, 4), (4,), (4,)), ((2, 3, 4), (4,), (4,)), ((4,), (4,), (4,)))),
        ("two", 2, (((2, 3, 4), (3, 4), (3, 4)), ((0, 3, 4), (3, 4), (3, 4)))),
    ):
        for count, what in ((1, "plain"), (2, "with weight"), (3, "with weight and bias")):
            yield (
                f"layer_norm {name} {what}",
                Case(
                    lambda lib, x, *parameters, dims=dims: lib.F.layer_norm(
                        x, tuple(x.shape[-dims:]), *parameters
                    ),
                    tuple(some[:count] for some in shapes),
                    ("real",) * count,
                ),
            )
