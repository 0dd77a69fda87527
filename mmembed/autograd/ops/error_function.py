"""The error function, which NumPy lacks, and GELU.

Must not know layers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ...narrow import wide as wide_dtype
from ..dtypes import Array
from ..recording import record
from ..variable import Variable
from .operands import check_floating, floating, quiet

if TYPE_CHECKING:
    from ..tensor import Tensor

# Coefficients of rational functions, the lowest power first, each for a range of |x|.
# Source: s_erf.c of fdlibm, whose notice is:
#   Copyright (C) 1993 by Sun Microsystems, Inc. All rights reserved.
#   Developed at SunPro, a Sun Microsystems, Inc. business.
#   Permission to use, copy, modify, and distribute this software is freely granted, provided that
#   this notice is preserved.
_NEAR_0 = (  # below 0.84375, in x**2
    (1.28379167095512558561e-01, -3.25042107247001499370e-01, -2.84817495755985104766e-02,
     -5.77027029648944159157e-03, -2.37630166566501626084e-05),
    (1.0, 3.97917223959155352819e-01, 6.50222499887672944485e-02, 5.08130628187576562776e-03,
     1.32494738004321644526e-04, -3.96022827877536812320e-06),
)  # fmt: skip
_NEAR_1 = (  # 0.84375..1.25, in |x| - 1
    (-2.36211856075265944077e-03, 4.14856118683748331666e-01, -3.72207876035701323847e-01,
     3.18346619901161753674e-01, -1.10894694282396677476e-01, 3.54783043256182359371e-02,
     -2.16637559486879084300e-03),
    (1.0, 1.06420880400844228286e-01, 5.40397917702171048937e-01, 7.18286544141962662868e-02,
     1.26171219808761642112e-01, 1.36370839120290507362e-02, 1.19844998467991074170e-02),
)  # fmt: skip
_FAR = (  # 1.25..1 / 0.35, in 1 / x**2
    (-9.86494403484714822705e-03, -6.93858572707181764372e-01, -1.05586262253232909814e+01,
     -6.23753324503260060396e+01, -1.62396669462573470355e+02, -1.84605092906711035994e+02,
     -8.12874355063065934246e+01, -9.81432934416914548592e+00),
    (1.0, 1.96512716674392571292e+01, 1.37657754143519042600e+02, 4.34565877475229228821e+02,
     6.45387271733267880336e+02, 4.29008140027567833386e+02, 1.08635005541779435134e+02,
     6.57024977031928170135e+00, -6.04244152148580987438e-02),
)  # fmt: skip
_FARTHER = (  # 1 / 0.35..6, in 1 / x**2
    (-9.86494292470009928597e-03, -7.99283237680523006574e-01, -1.77579549177547519889e+01,
     -1.60636384855821916062e+02, -6.37566443368389627722e+02, -1.02509513161107724954e+03,
     -4.83519191608651397019e+02),
    (1.0, 3.03380607434824582924e+01, 3.25792512996573918826e+02, 1.53672958608443695994e+03,
     3.19985821950859553908e+03, 2.55305040643316442583e+03, 4.74528541206955367215e+02,
     -2.24409524465858183362e+01),
)  # fmt: skip
_MIDDLE = 8.45062911510467529297e-01  # 24 bits of a value of erf in the range of _NEAR_1

_SQRT_HALF = math.sqrt(0.5)
_TANH_SCALE, _TANH_CUBE = math.sqrt(2 / math.pi), 0.044715  # of GELU's approximation


def erf(input: Variable) -> Tensor:
    """Return the error function, 2 / sqrt(pi) times the integral of exp(-t**2) from 0 to input."""
    x = floating(input)
    value = _erf(_wide(x.array)).astype(x.dtype, copy=False)
    return record("ErfBackward0", value, (x, _erf_rule, (x,)))


@quiet
def gelu(input: Variable, approximate: str = "none") -> Tensor:
    """Return input times the share of a normal distribution that lies below it.

    Parameters
    ----------
    approximate : "none", or "tanh" for the formula with tanh, which differs by up to 5e-4.

    Raises
    ------
    RuntimeError         another `approximate`.
    NotImplementedError  the input is not floating (torch's text).

    Source: torch.nn.functional.gelu.
    """
    if approximate not in ("none", "tanh"):
        raise RuntimeError("approximate argument must be either none or tanh.")
    check_floating(input, "GeluKernelImpl")
    x = _wide(input.array)
    if approximate == "tanh":
        value = 0.5 * x * (1 + np.tanh(_inner(x)))
        edge: tuple[Any, ...] = (input, _tanh_rule, (input,))
    else:
        share = 0.5 * (1 + _erf(x * _SQRT_HALF))
        value = x * share
        edge = (input, _exact_rule, (input, share))
    return record("GeluBackward0", value.astype(input.dtype, copy=False), edge)


def _exact_rule(upstream: Any, x: Array, share: Array) -> Any:
    x = _wide(x)
    density = np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return (upstream * (share + x * density)).astype(upstream.dtype, copy=False)


def _tanh_rule(upstream: Any, x: Array) -> Any:
    x = _wide(x)
    t = np.tanh(_inner(x))
    slope = _TANH_SCALE * (1 + 3 * _TANH_CUBE * x * x)
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope
    return (upstream * slope).astype(upstream.dtype, copy=False)


def _wide(x: Array) -> Array:
    return x.astype(wide_dtype(x.dtype), copy=False)


def _inner(x: Array) -> Array:
    return _TANH_SCALE * (x + _TANH_CUBE * x * x * x)


def _erf_rule(upstream: Any, x: Array) -> Any:
    return upstream * (np.exp(-x * x) * (2 / math.sqrt(math.pi)))


@quiet
def _erf(x: Array) -> Any:
    """Return erf(x) to a few units in the last place of x's dtype."""
    z = np.abs(x)
    result = np.where(np.isnan(z), z, z.dtype.type(1)).reshape(-1)  # 1 from 6 on
    flat = z.reshape(-1)
    for low, high, formula in _RANGES:
        inside = (flat >= low) & (flat < high)
        if inside.any():
            result[inside] = formula(flat[inside])
    return np.copysign(result.reshape(z.shape), x)


def _near_0(z: Array) -> Any:
    return z + z * _quotient(_NEAR_0, z * z)


def _near_1(z: Array) -> Any:
    return _MIDDLE + _quotient(_NEAR_1, z - 1)


def _far(z: Array) -> Any:
    return _from_tail(z, _FAR)


def _farther(z: Array) -> Any:
    return _from_tail(z, _FARTHER)


def _from_tail(z: Array, coefficients: tuple[tuple[float, ...], ...]) -> Any:
    square = z * z
    tail = np.exp(-square - 0.5625 + _quotient(coefficients, 1 / square)) / z
    return 1 - tail


def _quotient(coefficients: tuple[tuple[float, ...], ...], x: Array) -> Any:
    top, bottom = (_polynomial(part, x) for part in coefficients)
    return top / bottom


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    value: Array = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value *= x
        value += coefficient
    return value


_RANGES = (
    (0.0, 0.84375, _near_0),
    (0.84375, 1.25, _near_1),
    (1.25, 1 / 0.35, _far),
    (1 / 0.35, 6.0, _farther),
)
