"""Every body of the kernels for rows in fewer bits against the contract, NumPy and torch."""

from __future__ import annotations

import inspect
import types

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings

from mmembed.kernels import packed, reference
from mmembed.kernels.packed import BFLOAT16, FLOAT16, FLOAT32, ROWWISE8

from .cases import cases
from .checks import same_bits
from .packed_checks import CHECKS, FORMATS, HALVES, bytes_of_row, random_table
from .test_conformance import large_case


@pytest.mark.parametrize("name", CHECKS)
def test_every_body_takes_the_arguments_of_the_contract(body, name):
    contract = list(inspect.signature(getattr(packed, name)).parameters)

    assert list(inspect.signature(getattr(body, name)).parameters) == [*contract, "threads"]


@pytest.mark.parametrize("name", CHECKS)
@given(case=cases(max_dim=150))
@settings(max_examples=25)
def test_body_keeps_the_contract(body, name, case):
    CHECKS[name](body, case)


@pytest.mark.long
@pytest.mark.parametrize("name", CHECKS)
@given(case=cases(max_dim=150))
@settings(max_examples=500)
def test_body_keeps_the_contract_in_very_many_cases(body, name, case):
    CHECKS[name](body, case)


@pytest.mark.parametrize("name", CHECKS)
def test_result_has_the_same_bits_for_1_to_4_threads(body, name):
    case = large_case()
    for format in FORMATS[name.startswith("unpack_bags") :]:
        results = [run_large(body, name, format, case, threads) for threads in (1, 2, 3, 4)]

        for other in results[1:]:
            for got, want in zip(other, results[0], strict=True):
                same_bits(np.ascontiguousarray(got), np.ascontiguousarray(want))


def run_large(body, name, format, case, threads):
    """Call one kernel on the large case; returns everything it wrote."""
    table, ids = random_table(case, format), case.id_array
    if name == "unpack_rows":
        out = np.empty((ids.size, case.dim), np.float32)
        body.unpack_rows(table, format, ids, out, threads)
        return [out]
    if name == "pack_rows":
        _, unique, _ = case.plan()
        rows = case.numbers(unique.size, case.dim)
        body.pack_rows(rows, format, unique, table, format in HALVES, 5, 6, threads)
        return [table]
    starts = np.linspace(0, ids.size, 401).astype(np.int64)
    out, where = np.empty((400, case.dim), np.float32), np.empty((400, case.dim), np.int64)
    if name == "unpack_bags_max":
        body.unpack_bags_max(table, format, ids, starts, 1, out, where, threads)
        return [out, where]
    weights = case.numbers(ids.size)
    body.unpack_bags(table, format, ids, starts, weights, 1, True, out, threads)
    return [out]


def every_half():
    """All bit patterns of 16 bits, as 1024 rows of 64."""
    return np.arange(2**16, dtype=np.uint16).reshape(1024, 64)


def wide_of(bits, format):
    if format == FLOAT16:
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("format", HALVES)
def test_every_half_is_taken_apart_and_comes_back(body, format):
    table = every_half()
    out = np.empty(table.shape, np.float32)

    body.unpack_rows(table.view(np.uint8), format, np.arange(1024), out, 1)

    np.testing.assert_array_equal(out, wide_of(table, format))
    for stochastic in (False, True):
        back = np.zeros_like(table)
        args = stochastic, 1, 2, 1
        body.pack_rows(out, format, np.arange(1024), back.view(np.uint8), *args)
        nan = 0x7E00 if format == FLOAT16 else 0x7FC0
        same_bits(back, np.where(np.isnan(out), nan, table).astype(np.uint16))


def test_rounding_to_the_nearest_is_numpys_and_that_of_ml_dtypes(body):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    some = rng.integers(0, 2**32, (500, 64), dtype=np.uint32).view(np.float32)
    rows = np.where(np.isnan(some), 0, some)
    for format, dtype in ((FLOAT16, np.float16), (BFLOAT16, ml_dtypes.bfloat16)):
        out = np.empty(rows.shape, dtype)

        body.pack_rows(rows, format, np.arange(500), out.view(np.uint8), False, 0, 0, 1)

        with np.errstate(over="ignore"):
            same_bits(out.view(np.uint16), rows.astype(dtype).view(np.uint16))


@pytest.mark.parametrize("format", HALVES)
def test_random_rounding_is_right_on_average(body, format):
    least = 2.0**-10 if format == FLOAT16 else 2.0**-7  # distance of neighbours of 1
    x = np.float32(1 + least / 4)
    rows = np.full((4000, 64), x, np.float32)
    rows[2000:] = 2.0**-26 if format == FLOAT16 else 1 + least / 4  # a quarter of the least, or x
    out = np.zeros(rows.shape, np.uint16)

    body.pack_rows(rows, format, np.arange(4000), out.view(np.uint8), True, 3, 1, 2)

    for part in (slice(0, 2000), slice(2000, 4000)):
        up = out[part] != out[part].min()
        assert abs(up.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / up.size)
        assert abs(np.corrcoef(up[:, 0], up[:, 1])[0, 1]) < 0.12
        assert abs(np.corrcoef(up[:-1, 0], up[1:, 0])[0, 1]) < 0.12


@pytest.mark.parametrize("changed", ["seed", "step", "row", "column"])
def test_random_rounding_depends_on_seed_step_row_and_column(body, changed):
    rows = np.full((1, 200), 1.0001, np.float32)

    def draw(seed=1, step=1, row=0):
        table = np.zeros((2, 200), np.uint16)
        body.pack_rows(rows, BFLOAT16, np.array([row]), table.view(np.uint8), True, seed, step, 1)
        return table[row]

    rows[:] = 1 + 2.0**-8
    usual = draw()
    if changed == "column":
        assert not np.array_equal(usual[:64], usual[64:128])
        assert 0 < (usual == usual.max()).mean() < 1
    else:
        assert not np.array_equal(usual, draw(**{changed: 2 if changed != "row" else 1}))
        same_bits(usual, draw())


def test_bytes_are_those_of_torch_and_fbgemm_and_mean_the_same(body):
    torch = pytest.importorskip("torch")
    rows = np.random.default_rng(1).standard_normal((300, 67)).astype(np.float32)
    rows[5] = 0.25  # a range of zero
    out = np.zeros((300, bytes_of_row(ROWWISE8, 67)), np.uint8)

    body.pack_rows(rows, ROWWISE8, np.arange(300), out, False, 0, 0, 1)

    theirs = torch.ops.quantized.embedding_bag_byte_prepack(torch.from_numpy(rows))
    np.testing.assert_array_equal(out, theirs.numpy())
    back = np.empty_like(rows)
    body.unpack_rows(out, ROWWISE8, np.arange(300), back, 1)
    want = torch.ops.quantized.embedding_bag_byte_unpack(theirs).numpy()
    np.testing.assert_allclose(back, want, rtol=0, atol=1e-6)  # torch fuses product and sum
    step = (rows.max(axis=1) - rows.min(axis=1)) / 255
    assert (np.abs(back - rows) <= step[:, None] * 0.501 + 1e-7).all()


def mutants():
    """Deliberate mistakes: (check, a body with the mistake)."""

    def body_with(name, function):
        body = types.SimpleNamespace(**vars(reference))
        setattr(body, name, function)
        return pytest.param(name, body, id=function.__name__)

    def rows_are_cut_not_rounded(rows, format, ids, packed, stochastic, seed, step, threads):
        if format in HALVES and not stochastic:
            drop = 13 if format == FLOAT16 else 16
            rows = (rows.view(np.uint32) >> drop << drop).view(np.float32)
        return reference.pack_rows(rows, format, ids, packed, stochastic, seed, step, threads)

    def the_step_is_forgotten(rows, format, ids, packed, stochastic, seed, step, threads):
        return reference.pack_rows(rows, format, ids, packed, stochastic, seed, 0, threads)

    def the_place_is_drawn_for_not_the_row(
        rows, format, ids, packed, stochastic, seed, step, threads
    ):
        bad = reference.first_bad_id(ids, len(packed), 1)
        if bad >= 0 or ids.size == 0:
            return bad
        some = np.zeros((len(ids), packed.shape[1]), np.uint8)
        args = stochastic, seed, step, threads
        reference.pack_rows(rows, format, np.arange(ids.size), some, *args)
        packed[ids] = some
        return bad

    def ties_go_away_from_zero(rows, format, ids, packed, stochastic, seed, step, threads):
        if format == BFLOAT16 and not stochastic:
            rows = np.nextafter(rows, np.copysign(np.float32(np.inf), rows))
        return reference.pack_rows(rows, format, ids, packed, stochastic, seed, step, threads)

    def subnormal_halves_are_zero(packed, format, ids, out, threads):
        bad = reference.unpack_rows(packed, format, ids, out, threads)
        if bad < 0 and format == FLOAT16:
            out[np.abs(out) < 2.0**-14] = 0
        return bad

    def the_bias_is_forgotten(packed, format, ids, starts, weights, padding, mean, out, threads):
        packed = packed.copy()
        if format == ROWWISE8 and len(packed):
            packed[:, -4:] = 0
        args = starts, weights, padding, mean, out, threads
        return reference.unpack_bags(packed, format, ids, *args)

    def the_mean_is_rounded_twice(
        packed, format, ids, starts, weights, padding, mean, out, threads
    ):
        args = starts, weights, padding, mean, out, threads
        bad = reference.unpack_bags(packed, format, ids, *args)
        if bad < 0 and mean:
            out[...] = out.astype(np.float16)
        return bad

    def padding_counts(packed, format, ids, starts, padding, out, where, threads):
        args = starts, -1, out, where, threads
        return reference.unpack_bags_max(packed, format, ids, *args)

    yield body_with("pack_rows", rows_are_cut_not_rounded)
    yield body_with("pack_rows", the_step_is_forgotten)
    yield body_with("pack_rows", the_place_is_drawn_for_not_the_row)
    yield body_with("pack_rows", ties_go_away_from_zero)
    yield body_with("unpack_rows", subnormal_halves_are_zero)
    yield body_with("unpack_bags", the_bias_is_forgotten)
    yield body_with("unpack_bags", the_mean_is_rounded_twice)
    yield body_with("unpack_bags_max", padding_counts)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize(("name", "body"), [*mutants()])
def test_check_catches_the_mutant(name, body):
    def fails(case):
        try:
            CHECKS[name](body, case)
        except AssertionError:
            return True
        return False

    find(
        cases(max_rows=9),
        fails,
        settings=settings(
            max_examples=200, phases=[Phase.generate], database=None, derandomize=True
        ),
    )


def test_formats_are_the_same_numbers_everywhere():
    assert (FLOAT32, FLOAT16, BFLOAT16, ROWWISE8) == FORMATS == (0, 1, 2, 3)
