"""The contract of `mmembed.kernels` as checks that any body must pass and any mutant must fail.

Each check takes a body (a module or anything with its functions) and a Case, and works out the
answer by plain loops over Python lists, independently of the bodies.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

CANARY = -77


def same_bits(got, want):
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert got.tobytes() == want.tobytes(), f"got\n{got}\nwant\n{want}"


def summed(case, values, places):
    """The sum of some entries, in order, in the table's dtype."""
    if not places:
        return np.zeros(case.dim, case.dtype)
    total = values[places[0]].copy()
    for position in places[1:]:
        total = total + values[position]
    return total


def bad_batches(case, dtype=np.int64):
    """The case's ids with one bad id somewhere: (ids, its position)."""
    for position in sorted({0, len(case.ids) // 2, len(case.ids)}):
        for bad in (-1, case.rows, case.rows + 7):
            ids = np.array([*case.ids[:position], bad, *case.ids[position:], case.rows], dtype)
            yield ids, position


def check_first_bad_id(body, case):
    assert body.first_bad_id(case.id_array, case.rows, case.threads) == -1
    for ids, position in bad_batches(case, case.id_dtype):
        assert body.first_bad_id(ids, case.rows, case.threads) == position


def run_plan(body, case, ids):
    n = ids.size
    outs = [np.full(size, CANARY, np.int64) for size in (n, n, n + 1, 1)]
    bad = body.plan(ids, case.rows, *outs, np.empty(2 * n, np.int64), case.threads)
    return bad, outs


def check_plan(body, case):
    check_plan_of(body, case)
    # Ids this far apart need more passes of a radix sort; 2**31 and more do not fit int32.
    factor = 170_003 if case.id_dtype == "int32" else 2**40 + 1
    spread = dataclasses.replace(
        case, rows=case.rows * factor, ids=tuple(row * factor for row in case.ids)
    )
    if case.id_dtype == "int64" or spread.rows < 2**31 - 7:
        check_plan_of(body, spread)


def check_plan_of(body, case):
    bad, (order, unique, starts, count) = run_plan(body, case, case.id_array)
    want_order, want_unique, want_starts = case.plan()

    assert bad == -1
    assert count[0] == want_unique.size
    same_bits(order, want_order)
    same_bits(unique[: count[0]], want_unique)
    same_bits(starts[: count[0] + 1], want_starts)
    for ids, position in bad_batches(case, case.id_dtype):
        bad, outs = run_plan(body, case, ids)
        assert bad == position
        assert all((out == CANARY).all() for out in outs)


def check_gather(body, case):
    table = case.table(read_only=case.read_only)
    out = np.full((len(case.ids), case.dim), CANARY, case.dtype)

    assert body.gather(table, case.id_array, out, case.threads) == -1

    want = np.array([table[row].tolist() for row in case.ids], case.dtype)
    same_bits(out, want.reshape(out.shape))
    for ids, position in bad_batches(case, case.id_dtype):
        out = np.full((ids.size, case.dim), CANARY, case.dtype)
        assert body.gather(table, ids, out, case.threads) == position
        assert (out == CANARY).all()


def bags_of(case):
    """Where bags of the batch start; some are empty, some ids are before or after all bags."""
    cuts = np.random.default_rng([case.seed, 9]).integers(0, len(case.ids) + 1, case.seed % 7)
    return np.sort(cuts).astype(np.int64) if cuts.size else np.zeros(1, np.int64)


def bag_cases(case):
    """(starts, padding, positions of each bag that count)."""
    starts = bags_of(case)
    for padding in (-1, *case.ids[:1]):
        yield (
            starts,
            padding,
            [
                [i for i in range(first, last) if case.ids[i] != padding]
                for first, last in itertools.pairwise(starts)
            ],
        )


def check_gather_bags(body, case):
    table = case.table(read_only=case.read_only)
    real = np.dtype(case.dtype).type
    some = case.numbers(len(case.ids), salt=5)
    for starts, padding, bags in bag_cases(case):
        for weights in (some, np.empty(0, case.dtype)):
            products = table[np.array(case.ids, int)]
            if weights.size:
                products = weights[:, None] * products
            for mean in (False, True):
                out = np.full((len(bags), case.dim), CANARY, case.dtype)

                args = case.id_array, starts, weights, padding, mean, out, case.threads
                assert body.gather_bags(table, *args) == -1

                want = [summed(case, products, places) for places in bags]
                if mean:
                    want = [w / real(max(len(p), 1)) for w, p in zip(want, bags, strict=True)]
                same_bits(out, np.array(want, case.dtype).reshape(out.shape))
    for ids, position in bad_batches(case, case.id_dtype):
        out = np.full((1, case.dim), CANARY, case.dtype)
        args = np.array([0, ids.size]), np.empty(0, case.dtype), -1, False, out, case.threads
        assert body.gather_bags(table, ids, *args) == position
        assert (out == CANARY).all()


def check_gather_bags_max(body, case):
    table = case.table(read_only=case.read_only)
    for starts, padding, bags in bag_cases(case):
        out = np.full((len(bags), case.dim), CANARY, case.dtype)
        where = np.full((len(bags), case.dim), CANARY, np.int64)

        args = case.id_array, starts, padding, out, where, case.threads
        assert body.gather_bags_max(table, *args) == -1

        for bag, places in enumerate(bags):
            for j in range(case.dim):
                column = [float(table[case.ids[i], j]) for i in places]
                best = places[column.index(max(column))] if places else -1
                assert where[bag, j] == best
                same_bits(out[bag, j], table[case.ids[best], j] if places else out.dtype.type(0))
    for ids, position in bad_batches(case, case.id_dtype):
        out = np.full((1, case.dim), CANARY, case.dtype)
        where = np.full((1, case.dim), CANARY, np.int64)
        args = np.array([0, ids.size]), -1, out, where, case.threads
        assert body.gather_bags_max(table, ids, *args) == position
        assert (out == CANARY).all()
        assert (where == CANARY).all()


def norm(row, p):
    size = [abs(float(x)) for x in row]
    if not size:
        return 0.0
    if math.isinf(p):
        return max(size) if p > 0 else min(size)
    if p == 0:
        return float(sum(x != 0 for x in size))
    if p < 0 and 0.0 in size:
        return 0.0
    return sum(x**p for x in size) ** (1 / p)


NORM_TYPES = (2.0, 1.0, 0.0, 3.0, 0.5, -1.0, math.inf, -math.inf)


def check_row_norms(body, case):
    table = case.table(read_only=case.read_only)
    rtol = 1e-6 if case.dtype == "float32" else 1e-13
    ids = np.array(case.ids, np.int64)
    for p in NORM_TYPES:
        out = np.full(ids.size, CANARY, np.float64)

        assert body.row_norms(table, ids, p, out, case.threads) == -1

        np.testing.assert_allclose(out, [norm(table[row], p) for row in ids], rtol=rtol)
        same_bits(out, out.astype(case.dtype).astype(np.float64))
    for ids, position in bad_batches(case):
        out = np.full(ids.size, CANARY, np.float64)
        assert body.row_norms(table, ids, 2.0, out, case.threads) == position
        assert (out == CANARY).all()


def check_renorm(body, case):
    _, unique, _ = case.plan()
    most = 1.0
    for p in NORM_TYPES:
        table, before = case.table(), case.table()
        norms = np.empty(unique.size)
        body.row_norms(table, unique, p, norms, 1)

        assert body.renorm(table, unique, most, p, case.threads) == -1

        for row, size in zip(unique, norms, strict=True):
            if size > most:
                before[row] = before[row] * np.dtype(case.dtype).type(most / (size + 1e-7))
        same_bits(np.ascontiguousarray(table), np.ascontiguousarray(before))
    for ids, position in bad_batches(case):
        table, before = case.table(), case.table()
        assert body.renorm(table, ids, 1e-3, 2.0, case.threads) == position
        same_bits(np.ascontiguousarray(table), np.ascontiguousarray(before))


def check_segment_sum(body, case):
    order, _, starts = case.plan()
    values = case.values()
    out = np.full((starts.size - 1, case.dim), CANARY, case.dtype)

    body.segment_sum(values, order, starts, out, case.threads)

    want = [summed(case, values, places) for places in case.groups().values()]
    same_bits(out, np.array(want, case.dtype).reshape(out.shape))
    some = slice(len(out) // 3, len(out) - len(out) // 3)
    part = np.full_like(out[some], CANARY)
    body.segment_sum(values, order, starts[some.start : some.stop + 1], part, case.threads)
    same_bits(part, out[some])


def check_scatter_add(body, case):
    order, unique, starts = case.plan()
    values = case.values()
    out, want = case.table(), case.table()

    assert body.scatter_add(values, order, starts, unique, out, case.threads) == -1

    for position, row in enumerate(case.ids):
        want[row] = want[row] + values[position]
    same_bits(np.ascontiguousarray(out), np.ascontiguousarray(want))
    cut = len(unique) // 2
    again = case.table()
    for part in (slice(cut), slice(cut, None)):
        begins = starts[part.start or 0 : cut + 1 if part.stop == cut else None]
        assert body.scatter_add(values, order, begins, unique[part], again, case.threads) == -1
    same_bits(np.ascontiguousarray(again), np.ascontiguousarray(want))
    for ids, position, *segments in bad_segments(case):
        out, want = case.table(), case.table()
        assert body.scatter_add(*segments, ids, out, case.threads) == position
        same_bits(np.ascontiguousarray(out), np.ascontiguousarray(want))


def bad_segments(case):
    """One entry per id, with one bad id: (ids, its position, values, order, starts)."""
    for ids, position in bad_batches(case):
        values = np.ones((ids.size, case.dim), case.dtype)
        order = np.arange(ids.size)
        yield ids, position, values, order, np.arange(ids.size + 1)


def sgd(w, g, lr):
    return w - lr * g, ()


def momentum(w, g, lr, momentum, undampened, nesterov, buffer):
    buffer = momentum * buffer + undampened * g
    return w - lr * (g + momentum * buffer if nesterov else buffer), (buffer,)


def adagrad(w, g, lr, eps, total):
    total = total + g * g
    return w - lr * (g / (np.sqrt(total) + eps)), (total,)


def squares(row):
    partial = [0.0] * 8
    for j, x in enumerate(row.tolist()):
        partial[j % 8] += x * x
    total = 0.0
    for x in partial:
        total += x
    return total


def rowwise_adagrad(w, g, lr, eps, total):
    if g.size:
        total = total + w.dtype.type(squares(g) / g.size)
    return w - lr / (np.sqrt(total) + eps) * g, (total,)


def adam(w, g, step_size, towards_mean, towards_square, eps, mean, square):
    mean = mean + (g - mean) * towards_mean
    square = square + (g * g - square) * towards_square
    return w - step_size * (mean / (np.sqrt(square) + eps)), (mean, square)


def rowwise_adam(w, g, step_size, towards_mean, towards_square, correction, eps, mean, square):
    mean = mean + (g - mean) * towards_mean
    if g.size:
        square = square + (w.dtype.type(squares(g) / g.size) - square) * towards_square
    return w - step_size / (np.sqrt(square) * correction + eps) * mean, (mean, square)


SCALAR = {"update_rowwise_adagrad", "update_rowwise_adam"}  # the last state: one number per row
# name: (rule, number of states, numbers as the kernel takes them, the same as the rule takes them)
UPDATES = {
    "update_sgd": (sgd, 0, (0.3,), (0.3,)),
    "update_momentum": (momentum, 1, (0.3, 0.9, 0.25, True), (0.3, 0.9, 0.75, True)),
    "update_adagrad": (adagrad, 1, (0.3, 1e-3), (0.3, 1e-3)),
    "update_rowwise_adagrad": (rowwise_adagrad, 1, (0.3, 1e-3), (0.3, 1e-3)),
    "update_adam": (adam, 2, (0.3, 0.9, 0.99, 1e-3), (0.3, 1 - 0.9, 1 - 0.99, 1e-3)),
    "update_rowwise_adam": (
        rowwise_adam,
        2,
        (0.3, 0.9, 0.99, 1.75, 1e-3),
        (0.3, 1 - 0.9, 1 - 0.99, 1.75, 1e-3),
    ),
}
GRADIENTS = ((0.0, False), (0.0, True), (0.125, False), (0.125, True))


def update_arrays(case, name):
    """The parameter and its states, the last of which are sums of squares."""
    states = UPDATES[name][1]
    arrays = [case.table(salt=k, positive=k == states) for k in range(states + 1)]
    if name in SCALAR:
        narrow = dataclasses.replace(case, dim=1)
        arrays[states] = narrow.table(salt=states, positive=True)
    return arrays


def check_update(body, case, name, weight_decay=0.0, maximize=False, dense=False):
    """`dense`: every row of the table is updated, most of them with an empty segment."""
    rule, _, numbers, rule_numbers = UPDATES[name]
    real = np.dtype(case.dtype).type
    groups = case.groups()
    order, ids, starts = case.plan()
    if dense:
        groups = {row: groups.get(row, []) for row in range(case.rows)}
        ids = np.arange(case.rows)
        starts = np.cumsum([0, *(len(places) for places in groups.values())]).astype(np.int64)
    values = case.values()
    arrays = update_arrays(case, name)
    want = [array.copy() for array in arrays]
    work = np.empty((case.threads, case.dim), case.dtype)
    rest = (*numbers, weight_decay, maximize, work, case.threads)

    cut = ids.size // 3  # in two calls, each with a part of the segments
    for part in (slice(0, cut), slice(cut, ids.size)):
        begins = starts[part.start : part.stop + 1]
        assert getattr(body, name)(*arrays, ids[part], values, order, begins, *rest) == -1

    rule_numbers = [x if isinstance(x, bool) else real(x) for x in rule_numbers]
    for row, places in groups.items():
        g = summed(case, values, places)
        g = -g if maximize else g
        g = g + real(weight_decay) * want[0][row] if weight_decay else g
        want[0][row], after = rule(want[0][row], g, *rule_numbers, *(a[row] for a in want[1:]))
        for array, value in zip(want[1:], after, strict=True):
            array[row] = value
    for array, expected in zip(arrays, want, strict=True):
        same_bits(np.ascontiguousarray(array), np.ascontiguousarray(expected))
    for ids, position, *segments in bad_segments(case):
        before = [array.copy() for array in arrays]
        assert getattr(body, name)(*arrays, ids, *segments, *rest) == position
        for array, expected in zip(arrays, before, strict=True):
            same_bits(np.ascontiguousarray(array), np.ascontiguousarray(expected))


def check_initial_rows(body, case):
    seed = case.seed * 0x9E3779B97F4A7C15 % 2**64
    ids = np.array(case.ids, np.int64) * 1_000_003
    for kind, a, b in ((0, 0.25, 0.0), (1, -0.5, 2.0), (2, 1.0, 0.5)):
        out = case.table()[: ids.size] if ids.size <= case.rows else None
        if out is None:
            out = np.empty((ids.size, case.dim), case.dtype)

        body.initial_rows(ids, kind, a, b, seed, out, case.threads)

        want = [initial_row(row, kind, a, b, seed, case.dim) for row in ids.tolist()]
        same_bits(np.ascontiguousarray(out), np.array(want, case.dtype).reshape(out.shape))


def initial_row(row, kind, a, b, seed, dim):
    """The definition, one number at a time, in Python's integers and floats."""
    numbers = []
    for block in range(-(-dim // 4)):
        counter = [block, 0, row & 0xFFFFFFFF, row >> 32]
        u = [(word + 0.5) / 2**32 for word in philox(counter, seed)]
        if kind == 0:
            numbers += [a] * 4
        elif kind == 1:
            numbers += [a + (b - a) * x for x in u]
        else:
            numbers += [a + b * z for z in (*normal_pair(*u[:2]), *normal_pair(*u[2:]))]
    return numbers[:dim]


def philox(counter, seed):
    x = list(counter)
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        left, right = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [
            (right >> 32) ^ x[1] ^ key[0],
            right & 0xFFFFFFFF,
            (left >> 32) ^ x[3] ^ key[1],
            left & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return x


def series(coefficients, x):
    value = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        value = value * x + c
    return value


def normal_pair(u, turn):
    mantissa, exponent = math.frexp(u)
    if mantissa < math.sqrt(0.5):
        mantissa, exponent = 2 * mantissa, exponent - 1
    s = (mantissa - 1) / (mantissa + 1)
    log = exponent * math.log(2) + 2.0 * s * series([1 / k for k in range(1, 20, 2)], s * s)
    radius = math.sqrt(-2.0 * log)
    quarter = int(4 * turn + 0.5)
    x = 2 * math.pi * (turn - quarter / 4)
    sine = x * series([(-1) ** (k // 2) / math.factorial(k) for k in range(1, 18, 2)], x * x)
    cosine = series([(-1) ** (k // 2) / math.factorial(k) for k in range(0, 19, 2)], x * x)
    for _ in range(quarter % 4):
        cosine, sine = -sine, cosine
    return radius * cosine, radius * sine


CHECKS = {
    "first_bad_id": check_first_bad_id,
    "plan": check_plan,
    "gather": check_gather,
    "gather_bags": check_gather_bags,
    "gather_bags_max": check_gather_bags_max,
    "row_norms": check_row_norms,
    "renorm": check_renorm,
    "segment_sum": check_segment_sum,
    "scatter_add": check_scatter_add,
    "initial_rows": check_initial_rows,
}
