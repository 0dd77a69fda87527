"""kill, EIO, ENOSPC and ENOMEM at every system call of opening, training and closing."""

from __future__ import annotations

import errno

import pytest

from mmembed.storage import Table

from . import calls, kills

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

FAULTS = {
    "killed before": {"deadly": True},
    "killed after": {"deadly": True, "interrupt": True},
    "EIO": {"code": errno.EIO},
    "ENOSPC": {"code": errno.ENOSPC},
    "ENOMEM": {"code": errno.ENOMEM},
}


CASES = [
    (durability, "columns", fault) for durability in ("power", "process") for fault in FAULTS
] + [
    ("power", layout, fault)
    for layout in ("records", "lazy")
    for fault in ("killed before", "ENOSPC")
]


@pytest.mark.parametrize(("durability", "layout", "fault"), CASES)
def test_a_fault_at_any_call_leaves_a_commit(quick_path, durability, layout, fault):
    template = quick_path.with_name("template")
    model = calls.hot_table(template, durability, layout)

    made = calls.every_call(template, quick_path, model, 2, maps=True, **FAULTS[fault])

    assert made > 60


@pytest.mark.long
@pytest.mark.parametrize("layout", ["columns", "records", "lazy"])
@pytest.mark.parametrize("durability", ["power", "process"])
@pytest.mark.parametrize("attempt", range(3, 8))
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_any_call_and_a_kill_in_recovery_leave_a_commit(
    quick_path, durability, attempt, layout, fault
):
    template = quick_path.with_name("template")
    model = calls.hot_table(template, durability, layout)

    def kill_recoveries(path):
        for at in range(0, 60, 5):
            faults = calls.Faults(at, deadly=True, interrupt=bool(at % 2))

            def recover(_, faults=faults):
                with pytest.MonkeyPatch.context() as patch, faults.installed(patch):
                    Table.open(path, "r+")

            kills.reports(*kills.in_child(recover))

    calls.every_call(
        *(template, quick_path, model, attempt), after=kill_recoveries, maps=True, **FAULTS[fault]
    )
