"""The plan of a batch, on every body of the kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.rows import RowPlan


@given(ids=st.lists(st.integers(0, 30), max_size=60), dtype=st.sampled_from([np.int32, np.int64]))
def test_plan_groups_the_positions_of_a_batch_by_id(ids, dtype):
    plan = RowPlan(np.array(ids, dtype), 31)

    for s, row in enumerate(plan.unique):
        places = plan.order[plan.starts[s] : plan.starts[s + 1]]
        assert places.tolist() == [i for i, x in enumerate(ids) if x == row]
    assert plan.unique.tolist() == sorted(set(ids))
    assert plan.starts[-1] == len(ids)
    assert plan.counts().tolist() == [ids.count(row) for row in ids]


def test_plan_takes_ids_of_any_shape_and_keeps_them_flat(backend):
    plan = RowPlan(np.array([[3, 1], [1, 0]])[:, ::-1], 4)

    assert plan.ids.tolist() == [1, 3, 0, 1]
    assert plan.unique.tolist() == [0, 1, 3]


def test_plan_names_a_bad_id_when_it_is_first_sorted(backend):
    plan = RowPlan(np.array([0, 4, -1]), 4)

    with pytest.raises(IndexError, match="id 4 at 1 is outside the table, which has 4 rows"):
        _ = plan.unique


def test_plan_sorts_once(monkeypatch):
    calls = []
    from mmembed import kernels

    sort = kernels.plan
    monkeypatch.setattr(kernels, "plan", lambda *a: calls.append(1) or sort(*a))
    plan = RowPlan(np.array([2, 0, 2]), 3)

    _ = plan.order, plan.unique, plan.starts, plan.counts()

    assert len(calls) == 1
