"""The code that kernels become, for GPUs of compute capability 8.0 and 9.0, without a GPU.

A load of 128 bits that was lost, a register that was spilled, float64 where it does not belong or
a product fused into a sum costs speed or bits, and no simulator sees it.
"""

from __future__ import annotations

import os
import re
import types

import pytest

from .codegen import PACKAGES, compiled, loads_in_flight, programs, ptx_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

if programs() is None:
    if "cuda-code" in os.environ.get("MMEMBED_REQUIRE", ""):
        raise ImportError(f"numba-cuda, ptxas or cuobjdump is missing: {PACKAGES}")
    pytest.skip(f"code for GPUs: {PACKAGES}", allow_module_level=True)

from .variants import variants  # noqa: E402

NEWEST, OLDER = (9, 0), (8, 0)
# One of each kernel, in the shapes that are met most; `-m long` has all the others.
USUAL = re.compile(
    r"(check_ids|gather-16|sum_chunks|sums_to_places|count_digits|count_heads|narrow)-?(int64)?$"
    r"|(place_digits|write_heads)-int32-int32$|narrow-int64-int32-int32$"
    r"|(weight_gradients|weighted_segment_sum|sum_bags|sum_bags_weighted|max_bags|segment_sum|scatter_add|sgd|adagrad|adam"
    r"|rowwise_adagrad|row_norms0|renorm0|scatter_add_atomic_vectors)-float32-float32-4(-int64)?$"
    r"|(gather_cached-16|put_rows-16)-int64$|(probe|sweep|install|write_flagged)$"
    r"|(sum_bags|adam|max_bags)-bfloat16-bfloat16-8-int64$"
)
ALL = {variant.name: variant for variant in variants()}
NAMES = [name for name in ALL if USUAL.match(name)]
OTHERS = [name for name in ALL if name not in NAMES]


def check(variant, cc, folder):
    """The gate that every variant passes."""
    code = compiled(variant.kernel, cc, folder)
    assert code.spilled == 0
    assert code.stack == 0
    assert code.count(r"\b(LDL|STL)\b") == 0, "registers in local memory"
    assert code.registers <= (64 if variant.kernel.bounds == (256, 4) else 80)
    fused = re.search(r"\bfma\.rn\.f(32|64)", code.ptx)
    assert variant.fused or not fused, "a product is fused into a sum"
    rough = re.search(r"\w+(\.\w+)*\.(approx|ftz)\b", code.ptx)
    assert variant.fused or not rough, "a quotient, a root or a small number is not exact"
    assert variant.float64 or ".f64" not in code.ptx
    if variant.loads:
        assert code.count(r"^(@!?U?P\w+ )?LDG\S*\.128") > 0
    if variant.stores:
        assert code.count(r"^(@!?U?P\w+ )?STG\S*\.128") > 0
    assert max(loads_in_flight(code.instructions)) >= variant.flight
    return code


@pytest.mark.parametrize("name", NAMES)
def test_code_keeps_wide_loads_and_registers(name, tmp_path):
    check(ALL[name], NEWEST, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", OTHERS)
def test_code_of_every_other_variant_keeps_wide_loads_and_registers(name, tmp_path):
    check(ALL[name], NEWEST, tmp_path)


@pytest.mark.parametrize("name", ["gather-16-int64", "adagrad-float32-float32-4-int64"])
def test_code_for_an_older_gpu_does_too(name, tmp_path):
    check(ALL[name], OLDER, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in ALL if not ALL[name].newest])
def test_code_of_every_variant_for_an_older_gpu_does_too(name, tmp_path):
    check(ALL[name], OLDER, tmp_path)


def test_four_sums_in_memory_are_one_instruction(tmp_path):
    code = check(ALL["scatter_add_atomic_vectors-float32-float32-4-int64"], NEWEST, tmp_path)

    assert code.count(r"RED\S*\.F32x4") == 1


def test_the_gate_sees_a_product_that_is_fused_and_a_number_of_64_bits():
    from mmembed.kernels.cuda.running import Kernel

    def body(p_x):
        p_x[0] = p_x[1] * p_x[2] + p_x[3]

    def promoted(p_x):
        p_x[0] = p_x[1] * 0.1

    assert "fma.rn.f32" in ptx_of(Kernel(body, ["*float32"]), NEWEST)
    assert ".f64" in ptx_of(Kernel(promoted, ["*float32"]), NEWEST)


def test_the_gate_sees_a_wide_load_that_is_used_at_once():
    together = ["LDG.E.128 R4, desc[UR4][R2.64]", "LDG.E.128 R8, desc[UR4][R2.64+0x10]"]
    apart = [together[0], "FADD R0, R4, R5", together[1], "FADD R0, R8, R9"]

    assert loads_in_flight([*together, "FADD R0, R4, R8", "EXIT"]) == [2, 0]
    assert loads_in_flight([*apart, "EXIT"]) == [1, 0]


def test_a_launch_hands_over_addresses_and_numbers_as_they_are(monkeypatch):
    """Everything up to the driver, which is not here: what a launch gives it, in which types."""
    from numba.cuda import codegen, dispatcher

    from mmembed.kernels.cuda import rules, segments

    given = []

    def launch(self, arguments, grid, block, stream, shared):
        kinds = zip(self.argument_types, arguments, strict=True)
        for kind, value in kinds:
            self._prepare_args(kind, value, stream, [], given)
        given.extend([grid, block])

    here = types.SimpleNamespace(compute_capability=NEWEST)
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: here)
    monkeypatch.setattr(codegen.CUDACodeLibrary, "_ensure_cc", lambda self, cc: cc or NEWEST)
    monkeypatch.setattr(dispatcher._Kernel, "bind", lambda self: None)
    monkeypatch.setattr(dispatcher._Kernel, "launch", launch)
    monkeypatch.setattr("mmembed.kernels.cuda.running.most_blocks", lambda: 1056)
    kernel = segments.update.__wrapped__(rules.adagrad, 1, "float32", "float32", 4, "int64")
    arrays = [types.SimpleNamespace(address=2**40 + 16 * k) for k in range(8)]

    kernel.launch(10_000, *arrays, 2**33, 4, 16, 4, 0, 8, 0.5, 1e-10, 0.0, 0, 0.0, 1.0)

    *values, grid, block = given
    assert values[:8] == [array.address for array in arrays]
    assert [value.value for value in values[8:14]] == [2**33, 4, 16, 4, 0, 8]
    assert values[14].value == 0.5
    assert (grid, block) == ((1056, 1, 1), (256, 1, 1))
