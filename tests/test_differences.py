"""Every line of docs/differences-from-torch.md has a test, and every test listed here exists."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "differences-from-torch.md"

# How the line begins (the first cell of a row): the tests that show it.
TESTS = {
    "a bad id": "nn/test_embedding.py::test_a_bad_id_is_named_and_nothing_is_renormed",
    "a bad id with `max_norm`": "nn/test_embedding.py::"
    "test_a_bad_id_is_named_and_nothing_is_renormed",
    "`max_norm` on a read-only array": "nn/test_embedding.py::"
    "test_max_norm_on_a_read_only_table_is_refused",
    "a float32 norm that overflows": "kernels/test_conformance.py::"
    "test_norm_above_the_largest_float32_does_not_zero_a_finite_row",
    "`scale_grad_by_freq` with `sparse=True`": "nn/test_embedding.py::"
    "test_frequency_scaling_works_with_sparse_gradients_too",
    "sparse, `padding_idx`, 0-d ids": "nn/test_embedding_parity.py::"
    "test_output_table_versions_and_gradients_are_torchs",
    "a bad id in a bag": "nn/test_embedding_bag.py::test_a_bad_id_is_named_and_nothing_is_renormed",
    "offsets of bags that descend, are negative, or do not cover the input": (
        "nn/test_embedding_bag.py::test_offsets_that_torch_reads_beyond_are_refused"
    ),
    "`scale_grad_by_freq` in bags": "nn/test_embedding_bag.py::"
    "test_frequency_scaling_counts_an_id_in_the_whole_batch",
    "a 2-D batch of bags without ids": "nn/test_embedding_bag.py::"
    "test_batches_without_ids_give_zeros",
    "the padding row of bags": "nn/test_embedding_bag.py::"
    "test_the_padding_row_counts_if_asked_and_gets_no_gradient_all_the_same",
    "sparse gradients": "nn/test_embedding.py::"
    "test_gradients_share_no_memory_with_the_upstream_gradient",
    "sparse gradients through `w * vector`, `w * s`, slices, casts, `t()`, …": (
        "nn/test_embedding.py::test_a_sparse_gradient_reaches_the_table_through_any_operation"
    ),
    "`clip_grad_norm_`, `clip_grad_value_` of sparse gradients": "nn/test_clip.py::"
    "test_sparse_gradients_are_clipped_as_if_they_were_dense",
    "AdamW for sparse gradients": "optim/test_sparse_adamw.py::"
    "test_rows_and_lookups_are_those_of_a_table_that_decays_at_once",
    "ids that are no integers": "test_ids.py::"
    "test_ids_that_are_no_integers_are_refused_in_torchs_words",
    "An argument of a wrong type": "nn/test_embedding.py::"
    "test_a_padding_row_that_is_no_integer_is_refused",
    "A step of an optimizer may differ": "optim/test_parity.py::"
    "test_a_step_is_torchs_but_for_the_rounding_of_its_products",
    "`Adam` and `AdamW` have no": "optim/test_parity.py::test_amsgrad_is_refused",
    "ids of 8, 16 and unsigned bits, lists, arrays": "test_ids.py::"
    "test_integers_of_other_widths_become_int64",
    "`from_pretrained`": "nn/test_embedding.py::"
    "test_from_pretrained_trains_a_memory_mapped_array_where_it_is",
    "`load_state_dict`": "nn/test_module.py::test_a_state_that_does_not_fit_changes_nothing",
    "an optimizer that refuses a gradient": "optim/test_parity.py::"
    "test_a_gradient_the_rule_does_not_support_is_refused_before_anything_changes",
    "optimizer state": "optim/test_optimizer.py::"
    "test_training_that_is_closed_and_reopened_goes_on_as_if_it_had_not_been",
    "`Embedding` draws its rows": "nn/test_embedding.py::"
    "test_the_same_seed_gives_the_same_table_in_memory_and_on_disk",
    "float16 and bfloat16 tables": "nn/test_narrow.py::test_sums_do_not_stop_where_the_dtype_does",
    "their optimizer state": "nn/test_narrow.py::test_steps_are_those_of_float32_rounded_once",
    "their updates": "nn/test_narrow.py::test_tiny_updates_survive_on_average",
    "Parameters that are optimized": "optim/test_optimizer.py::test_wrong_parameters_are_refused",
    '`output_dtype="float32"`': "nn/test_narrow.py::"
    "test_a_gradient_may_be_float32_and_is_collected_as_such",
    "`nn.QuantizedEmbedding`": "nn/test_quantized.py::test_lookups_are_those_of_the_float_rows",
    "A bfloat16 gradient": "nn/test_narrow.py::test_bfloat16_tensors_go_through_the_tape",
    "The decay that `SparseAdamW`": "nn/test_narrow.py::"
    "test_sparse_adamw_decays_narrow_rows_to_the_nearest",
    '`device` is `"cpu"`': "nn/test_module.py::test_another_device_is_refused",
    "`resize_(rows)` grows": "nn/test_resize.py::"
    "test_gradients_from_before_and_after_a_growth_add_up",
    "`RowGrad`, the sparse gradient": "rows/test_grad.py::test_arithmetic_agrees_with_torch",
    "A deep copy of an Embedding on disk": "nn/test_embedding.py::"
    "test_deepcopy_is_in_memory_and_apart",
    "Gradients are plain arrays": "autograd/test_grad.py::"
    "test_gradients_are_leaves_that_require_no_gradient",
    "In-place changes of a view of a non-leaf tensor": "autograd/test_inplace.py::"
    "test_a_view_of_a_recorded_tensor_is_refused_and_clone_is_named",
    "`binary_cross_entropy_with_logits` broadcasts": "autograd/test_losses.py::"
    "test_targets_of_every_kind_give_the_same",
    "`mean` and `norm` of integers": "autograd/test_dtypes.py::"
    "test_integers_become_float32_where_a_fraction_can_come_out",
    "`ModuleList.insert` takes": "nn/test_layers.py::test_a_list_inserts_where_lists_do",
    "What `dropout` zeroes": "autograd/test_layers.py::test_dropout_follows_from_the_seed",
    "`no_grad` refuses to decorate": "autograd/test_tape.py::"
    "test_decorating_a_generator_function_is_refused",
}


def lines():
    """The lines of the document: first cells of its tables, and its bullet points."""
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| where "):
            yield line.split("|")[1].strip()
        elif line.startswith("- "):
            yield line.removeprefix("- ")


def test_every_line_has_a_test_and_every_test_a_line():
    found = {
        next((known for known in sorted(TESTS, key=len) if line == known), None)
        or next((known for known in TESTS if line.startswith(known)), f"no test: {line}")
        for line in lines()
    }

    assert found == set(TESTS)


@pytest.mark.parametrize("name", sorted(set(TESTS.values())))
def test_the_test_exists(name):
    file, function = name.split("::")

    tree = ast.parse((HERE / file).read_text())

    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
