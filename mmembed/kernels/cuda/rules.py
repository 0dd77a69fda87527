"""What becomes of one element of a row and of its state, for each optimizer.

A rule takes the element w, its gradient g, states s and t, and four numbers; it returns the three
that changed. Numbers have the dtype of arithmetic; a product is rounded before it is added, as on
the CPU. Must not know rows or memory.
"""

from __future__ import annotations

from .target import device, mul, root


@device
def sgd(w, g, s, t, lr, _a, _b, _c):
    """See `kernels.update_sgd`."""
    return w - mul(lr, g), s, t


@device
def momentum(w, g, s, t, lr, momentum, undampened, _c):
    """See `kernels.update_momentum`."""
    moved = mul(momentum, s) + mul(undampened, g)
    return w - mul(lr, moved), moved, t


@device
def nesterov(w, g, s, t, lr, momentum, undampened, _c):
    """See `kernels.update_momentum`."""
    moved = mul(momentum, s) + mul(undampened, g)
    return w - mul(lr, g + mul(momentum, moved)), moved, t


@device
def adagrad(w, g, s, t, lr, eps, _b, _c):
    """See `kernels.update_adagrad`."""
    total = s + mul(g, g)
    return w - mul(lr, g / (root(total) + eps)), total, t


@device
def adam(w, g, s, t, step, towards_mean, towards_square, eps):
    """See `kernels.update_adam`."""
    mean = s + mul(g - s, towards_mean)
    square = t + mul(mul(g, g) - t, towards_square)
    return w - mul(step, mean / (root(square) + eps)), mean, square


# Row-wise rules come in two parts: of the row's one number, and of each element.


@device
def rowwise_adagrad_total(total, squares, _towards, lr, _correction, eps):
    """Return (the row's new total, the factor of its elements)."""
    total = total + squares
    return total, lr / (root(total) + eps)


@device
def rowwise_adagrad(w, g, s, factor, _towards):
    """See `kernels.update_rowwise_adagrad`."""
    return w - mul(factor, g), s


@device
def rowwise_adam_square(square, squares, towards, step, correction, eps):
    """Return (the row's new mean square, the factor of its elements)."""
    square = square + mul(squares - square, towards)
    return square, step / (mul(root(square), correction) + eps)


@device
def rowwise_adam(w, g, s, factor, towards):
    """See `kernels.update_rowwise_adam`."""
    mean = s + mul(g - s, towards)
    return w - mul(factor, mean), mean
