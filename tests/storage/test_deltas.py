"""Deltas: all that changed between commits, applied whole or not at all, to its base alone."""

from __future__ import annotations

import os
import random
import shutil
import signal

import numpy as np
import pytest

from mmembed.errors import CorruptTableError, DeltaError, TableLockedError
from mmembed.storage import Table, deltas, diff, verify
from mmembed.storage.changes import Changes
from mmembed.storage.changes_format import MARKS_AT, MOST_RUNS
from mmembed.storage.delta_format import RECORDS_AT
from mmembed.storage.directory import DirectoryStore
from tests.faults import calls, kills, power, replay

from .examples import contents
from .faults import Faults, every_fault
from .mutation import put_in
from .test_snapshots import state

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def path(quick_path):
    """Where a table goes."""
    return quick_path


@pytest.fixture
def base(path):
    """Where a copy goes."""
    return path.with_name("base.mmembed")


@pytest.fixture
def delta(path):
    """Where a delta goes."""
    return path.with_name("items.delta")


def tracked(path, rows=300, dim=70):
    """A writable table with a commit, which tracks its changes."""
    table = Table.create(path, rows, dim)
    table.add_column("count", scalar=True)
    table.track_changes()
    table.write(range(0, rows, 3), 1)
    table.commit(step=5, metadata={"at": 5})
    return table


def pair(path, base):
    """A table, and a copy of its first commit."""
    table = tracked(path)
    table.snapshot(base)
    return table


def change(table, rows, step):
    table.write(rows, np.random.default_rng(step).standard_normal((len(rows), table.dim)))
    table.count("steps", step)
    table.commit(step=step, metadata={"at": step})


def apply(base, delta):
    with Table.open(base, "r+") as table:
        return table.apply_delta(delta)


def test_a_delta_brings_a_copy_up_to_date(path, base, delta):
    with pair(path, base) as table:
        change(table, [7, 9, 280], 6)
        change(table, [8, 9], 7)
        made = table.export_delta(delta, since=1)

    assert (made.rows, made.records, made.bytes) == (4, 1, delta.stat().st_size)
    assert apply(base, delta)
    assert state(base) == state(path)
    assert not apply(base, delta)


def test_a_delta_goes_on_from_what_a_delta_led_to(path, base, delta):
    with pair(path, base) as table:
        for step in range(6, 12):
            change(table, [step], step)
            made = table.export_delta(delta, base=base)
            assert made.rows == 1
            assert apply(base, delta)
            assert state(base) == state(path)
            delta.unlink()
        empty = table.export_delta(delta, base=base)
        assert (empty.rows, empty.bytes) == (0, RECORDS_AT)


def test_a_copy_may_become_the_table_that_deltas_are_made_of(path, base, delta):
    with pair(path, base) as table:
        change(table, [3], 6)
        table.export_delta(delta, base=base)
    apply(base, delta)
    third = path.with_name("third.mmembed")
    with Table.open(base, "r+") as table:
        table.snapshot(third)
        change(table, [4, 5], 7)
        with pytest.raises(DeltaError, match="is none that"):
            Table.open(path).export_delta(path.with_name("x"), base=base)
        assert table.export_delta(path.with_name("second"), base=third).rows == 2
    apply(third, path.with_name("second"))

    assert state(third) == state(base)


def test_growth_and_columns_come_along(path, base, delta):
    with pair(path, base) as table:
        table.resize(900)
        table.add_column("context", 3, init="normal")
        change(table, [899], 6)
        made = table.export_delta(delta, since=1)

    assert made.rows == 1
    apply(base, delta)
    assert state(base) == state(path)


def test_records_are_copied_and_brought_up_to_date(path, base, delta):
    with Table.create(
        path, 300, 70, layout="records", columns={"weight.sum": {"init": "ones"}}
    ) as table:
        table.track_changes()
        table.commit()
        table.snapshot(base)
        with table.writing(np.array([3, 299])) as columns:
            for name in columns:
                columns[name][[3, 299]] = 7
        table.add_column("late", scalar=True)
        table.commit()
        table.write([4], 1)
        made = table.export_delta(delta, since=1)
        table.rollback()

    assert made.rows == 2
    apply(base, delta)
    with Table.open(base) as copy, Table.open(path) as table:
        assert diff(table, copy).same
    assert not [finding for finding in verify(base, deep=True) if finding.state == "bad"]


def test_short_rows_share_a_mark(path, base, delta):
    with tracked(path, 1000, 3) as table:
        table.snapshot(base)
        change(table, [500, 999], 6)
        assert table.export_delta(delta, since=1).rows == 32 + 8

    apply(base, delta)
    assert state(base) == state(path)


def test_what_no_commit_has_is_not_in_a_delta(path, base, delta):
    table = pair(path, base)
    change(table, [1, 2, 3], 6)
    before = state(path)
    table.write([2, 3, 4], 0)

    for handle in (table, Table.open(path)):
        handle.export_delta(delta, since=1)
        shutil.copytree(base, base.with_name("again"))
        apply(base.with_name("again"), delta)
        assert state(base.with_name("again")) == before
        shutil.rmtree(base.with_name("again"))
        delta.unlink()
    table.close(commit=False)


def meanwhile(monkeypatch, *acts):
    """Do something each time that rows were copied, until all is done."""
    waiting = list(acts)
    real = deltas.seal

    def seal(*arguments):
        if waiting:
            waiting.pop(0)()
        return real(*arguments)

    monkeypatch.setattr(deltas, "seal", seal)
    monkeypatch.setattr(deltas, "RECORD_BYTES", 4096)  # several records


def test_rows_that_change_while_they_are_copied_are_as_committed(path, base, delta, monkeypatch):
    table = pair(path, base)
    change(table, range(0, 300, 2), 6)
    before = state(path)
    table.write(range(30, 40), 8)
    meanwhile(
        monkeypatch, lambda: table.write(range(50), 9), lambda: table.write(range(40, 200), 9)
    )

    assert table.export_delta(delta, since=1).records > 5
    table.close(commit=False)

    apply(base, delta)
    assert state(base) == before


@pytest.mark.parametrize("what", ["commit", "rollback", "resize", "close"])
def test_a_delta_that_a_writer_overtakes_begins_again(path, base, delta, monkeypatch, what):
    table = pair(path, base)
    change(table, range(0, 300, 2), 6)
    table.write(range(10), 2)
    acts = {
        "commit": lambda: table.commit(step=9) or table.write([3], 8),
        "rollback": lambda: table.rollback() or table.write(range(20, 40), 8),
        "resize": lambda: table.resize(400),
        "close": lambda: table.close(commit=True),
    }
    meanwhile(monkeypatch, lambda: None, acts[what])

    Table.open(path).export_delta(delta, since=1)

    if not table.closed:
        table.close(commit=False)
    apply(base, delta)
    assert state(base) == state(path)


def test_a_delta_of_a_table_that_is_committed_all_the_time_is_given_up(
    path, base, delta, monkeypatch
):
    table = pair(path, base)
    change(table, [5], 6)
    real = deltas.seal
    monkeypatch.setattr(deltas, "seal", lambda *given: table.commit(step=9) or real(*given))

    with pytest.raises(TableLockedError, match="again and again"):
        table.export_delta(delta, since=1, timeout=0.1)

    assert not delta.exists()
    table.close()


# What is refused


@pytest.mark.parametrize("wrong", ["another table", "own commit", "older", "newer", "untracked"])
def test_a_delta_of_another_base_is_refused(path, base, delta, wrong):
    table = pair(path, base)
    change(table, [1], 6)
    if wrong == "older":
        table.export_delta(delta, since=2)
    change(table, [2], 7)
    if wrong != "older":
        table.export_delta(delta, since=1)
    message = "does not follow on"
    if wrong == "another table":
        shutil.rmtree(base)
        tracked(base).close()
        message = "is of table"
    elif wrong == "own commit":
        with Table.open(base, "r+") as copy:
            copy.commit(step=6)
    elif wrong == "newer":
        shutil.rmtree(base)
        table.commit(step=8)
        table.snapshot(base)
    elif wrong == "untracked":
        (base / "changes").unlink()
        message = "does not track"
    table.close()
    before = state(base), (base / "weight.npy").read_bytes()

    with pytest.raises(DeltaError, match=message):
        apply(base, delta)

    assert (state(base), (base / "weight.npy").read_bytes()) == before


def test_a_delta_for_a_base_that_went_its_own_way_is_refused(path, base, delta):
    with pair(path, base) as table, Table.open(base, "r+") as copy:
        change(table, [1], 6)
        copy.commit(step=6)
        with pytest.raises(DeltaError, match="has changed by itself"):
            table.export_delta(delta, base=base)


def test_every_damage_to_a_delta_is_refused_and_changes_nothing(path, base, delta):
    with pair(path, base) as table:
        change(table, range(40), 6)
        table.export_delta(delta, since=1)
    whole = delta.read_bytes()
    chance = random.Random(1)
    used = [*range(120), *range(4096, 4800), *range(RECORDS_AT - 8, len(whole))]

    with Table.open(base, "r+") as copy:
        before = contents(base)
        for _ in range(300):
            data = bytearray(whole)
            kind = chance.choice(["flip", "cut", "longer", "zeros", "swap"])
            at = chance.choice(used)
            if kind == "flip":
                data[at] ^= 1 << chance.randrange(8)
            elif kind == "cut":
                del data[chance.randrange(len(whole)) :]
            elif kind == "longer":
                data += bytes(chance.randrange(1, 100))
            elif kind == "zeros":
                data[at : at + 40] = bytes(len(data[at : at + 40]))
            else:
                data[at], data[at - 1] = data[at - 1], data[at]
            if data == whole:
                continue
            delta.write_bytes(data)
            with pytest.raises(CorruptTableError):
                copy.apply_delta(delta)
        assert contents(base) == before
        assert not copy._store.pending


def test_records_of_another_delta_are_refused(path, base, delta):
    other = delta.with_name("other")
    with pair(path, base) as table:
        change(table, [5], 6)
        table.export_delta(delta, since=1)
        change(table, [5], 7)
        table.export_delta(other, since=1)
    delta.write_bytes(delta.read_bytes()[:RECORDS_AT] + other.read_bytes()[RECORDS_AT:])

    with pytest.raises(CorruptTableError, match="0 of its 1 records"):
        apply(base, delta)


def test_wrong_questions_are_refused(path, base, delta):
    with Table.create(path, 9, 2) as table:
        with pytest.raises(DeltaError, match=r"does not track its changes.*delta track"):
            table.export_delta(delta, since=0)
        table.commit()
        table.track_changes()
        for since in (0, 2, -1):
            with pytest.raises(DeltaError, match=r"since the commits 1\.\.1"):
                table.export_delta(delta, since=since)
        with pytest.raises(TypeError, match="one of the two"):
            table.export_delta(delta)
        table.snapshot(base)
        table.export_delta(delta, since=1)
        with pytest.raises(FileExistsError):
            table.export_delta(delta, since=1)
        table.write([1], 1)
        with pytest.raises(DeltaError, match="commit or roll back"):
            table.apply_delta(delta)
        with pytest.raises(CorruptTableError, match="not a regular file"):
            Table.open(base, "r+").apply_delta(path)
    with Table.create(None, 2, 2) as memory, pytest.raises(ValueError, match="in memory"):
        memory.track_changes()


# What is marked


def test_marks_that_are_not_of_the_last_commit_do_not_count(path, base, delta):
    with pair(path, base) as table:
        change(table, [1], 6)
    old = (path / "changes").read_bytes()
    with Table.open(path, "r+") as table:
        change(table, [2], 7)
        change(table, [3], 8)
        assert table.export_delta(delta, since=1).rows == 3
    (path / "changes").write_bytes(old)

    assert "not up to the last commit" in str(verify(path))
    with Table.open(path, "r+") as table:
        with pytest.raises(DeltaError, match="does not track"):
            table.export_delta(delta.with_name("x"), since=1)
        change(table, [4], 9)
        table.track_changes()
        assert "ok" in {f.state for f in verify(path) if f.part == "changes"}
        with pytest.raises(DeltaError, match=r"since the commits 5\.\.5"):
            table.export_delta(delta.with_name("x"), since=1)


def test_many_openings_forget_the_oldest_names_and_no_change(path, base, delta, monkeypatch):
    monkeypatch.setattr("mmembed.storage.changes_format.MOST_RUNS", 5)
    assert MOST_RUNS > 400
    pair(path, base).close()
    for step in range(6, 14):
        with Table.open(path, "r+") as table:
            change(table, [step], step)
            change(table, [step + 1], step)
    with Table.open(path, "r+") as table:
        since = table.commits - 9
        with pytest.raises(DeltaError):
            table.export_delta(delta, since=1)
        assert table.export_delta(delta, since=since).rows == 5


def test_rows_that_are_put_back_are_marked_again(path, base, delta):
    pair(path, base).close()

    def die(_):
        table = Table.open(path, "r+")
        table.write([5, 6], 1)
        os.kill(os.getpid(), signal.SIGKILL)

    kills.reports(*kills.in_child(die))
    with open(path / "changes", "r+b") as file:  # as a torn mark may be
        file.seek(MARKS_AT + 4 * 5)
        file.write(bytes(4))

    with Table.open(path, "r+") as table:
        table.commit()
        assert table.export_delta(delta, since=1).rows >= 2


def train_and_compare(path, base, start):
    """Go on with a table, and bring a copy of before up to date by a delta."""
    delta = path.with_name("after.delta")
    with Table.open(path, "r+") as table:
        replay.train(table, 77, start, start + 8)
        table.commit(step=start + 8)
        made = table.export_delta(delta, base=base)
    copy = base.with_name("copied")
    shutil.copytree(base, copy)
    with Table.open(copy, "r+") as table:
        table.apply_delta(delta)
    assert state(copy) == state(path)
    shutil.rmtree(copy)
    delta.unlink()
    return made


def hot_pair(path, base, durability):
    """A table that a kill left in the middle of a commit, and a copy of a commit before."""
    replay.create(path, durability, rows=1000, dim=64)  # wide rows, with a mark for each
    with Table.open(path, "r+") as table:
        table.track_changes()
        replay.train(table, 1, 0, 14)
        table.snapshot(base)
        replay.train(table, 1, 14, 21)

    def train(_):
        table = Table.open(path, "r+")
        replay.train(table, 1, 21, 26)
        os.kill(os.getpid(), signal.SIGKILL)

    kills.reports(*kills.in_child(train))


def check_faults(path, base, durability, fault, every=1):
    """No fault at any call of training lets a change be missed by the marks."""
    hot_pair(path, base, durability)
    template = path.with_name("template")
    shutil.copytree(path, template)
    for at in range(0, 1000, every):
        shutil.rmtree(path)
        shutil.copytree(template, path)
        said = kills.reports(
            *kills.in_child(
                lambda report, at=at: calls.run(path, 3, report, Faults(at, maps=True, **fault))
            )
        )
        train_and_compare(path, base, 50)
        if any(kind == calls._CALLS and made <= at for kind, made, _ in said):
            return
    raise AssertionError("the calls never end")


@pytest.mark.parametrize("fault", ["killed before", "EIO"])
def test_a_fault_at_any_call_of_training_loses_no_mark(path, base, fault):
    fault = {"EIO": {}, "killed before": {"deadly": True}}[fault]
    check_faults(path, base, "process", fault, every=7)


@pytest.mark.long
@pytest.mark.parametrize("durability", ["power", "process"])
@pytest.mark.parametrize("fault", [{}, {"deadly": True}, {"deadly": True, "interrupt": True}])
def test_a_fault_at_every_call_of_training_loses_no_mark(path, base, fault, durability):
    check_faults(path, base, durability, fault)


def lose_power(path, base, draws, chosen):
    """Lose the power at any call of training, and compare what the marks say afterwards."""
    hot_pair(path, base, "power")
    chance = random.Random(5)
    disk, moments = power.Disk(path), []

    def watch(call):
        disk.look(call)
        if call.split()[0] not in ("fstat", "open", "pread"):
            moments.extend(disk.lose_power(chance) for _ in range(draws))

    with pytest.MonkeyPatch.context() as patch, Faults().installed(patch) as faults:
        faults.watch = watch
        # Another thread's calls would not come one by one.
        patch.setattr(Table, "will_write", lambda table, rows: None)
        table = Table.open(path, "r+")
        replay.train(table, 6, 21, 33)
        faults.watch = lambda call: None
        table.close(commit=False)
    for files in chance.sample(moments, min(chosen, len(moments))):
        shutil.rmtree(path)
        path.mkdir(mode=0o700)
        for name, data in files.items():
            (path / name).touch(mode=0o600)
            (path / name).write_bytes(data)
        train_and_compare(path, base, 50)


def test_a_loss_of_power_loses_no_mark(path, base):
    lose_power(path, base, 2, 30)


@pytest.mark.long
def test_many_losses_of_power_lose_no_mark(path, base):
    lose_power(path, base, 8, 400)


@pytest.mark.long
def test_marks_that_are_not_synced_are_noticed(path, base, monkeypatch):
    put_in(monkeypatch, Changes, "record", "if sync:", "if False:")

    with pytest.raises((AssertionError, DeltaError)):
        lose_power(path, base, 8, 400)


def test_marks_that_are_not_made_again_are_noticed(path, base, delta, monkeypatch):
    put_in(monkeypatch, DirectoryStore, "_put_back", "changes.mark(", "(lambda *_: None)(")

    with pytest.raises(AssertionError):
        test_rows_that_are_put_back_are_marked_again(path, base, delta)


MISTAKES = {
    "the second look left out": (
        deltas._Export,
        "run",
        "if standing(self.directory) != before:\n                raise",
        "if False:\n                raise",
    ),
    "rows not marked": (Changes, "mark", "self._marks[rows >> self.history.shift]", "_"),
    "the last row of each block not marked": (
        Changes,
        "mark",
        "in blocks:",
        "in (r[:-1] for r in blocks):",
    ),
    "marked with the commit before": (Changes, "mark", "commit - self", "commit - 1 - self"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_marking_is_noticed(path, base, monkeypatch, mistake):
    put_in(monkeypatch, *MISTAKES[mistake])

    def compare():
        test_a_delta_that_a_writer_overtakes_begins_again(
            *(path, base, path.with_name("items.delta"), monkeypatch, "commit")
        )
        shutil.rmtree(path)
        shutil.rmtree(base)
        hot_pair(path, base, "process")
        train_and_compare(path, base, 50)

    with pytest.raises((AssertionError, IndexError)):
        compare()


def test_long_training_by_deltas_is_the_training(path, base):
    hot_pair(path, base, "process")

    for start in range(30, 200, 20):
        train_and_compare(path, base, start)


# Faults in making and applying


@pytest.mark.parametrize("interrupt", [False, True])
def test_an_export_that_fails_anywhere_leaves_nothing(path, base, delta, monkeypatch, interrupt):
    table = pair(path, base)
    change(table, range(40), 6)
    table.write([3], 4)
    failed = 0
    for call, _, made in every_fault(
        lambda _: table.export_delta(delta, since=1), monkeypatch, interrupt,
        lambda: delta.unlink(missing_ok=True),
    ):  # fmt: skip
        failed += made is None
        left = {name for name in os.listdir(path.parent) if "delta" in name}
        assert left <= {delta.name} or call.startswith("unlink"), call
        if delta.name in left:
            deltas.read_delta(delta)
        for name in left:
            (path.parent / name).unlink()
    assert failed > 30
    table.close(commit=False)


@pytest.mark.parametrize("fault", [{"deadly": True}, {"deadly": True, "interrupt": True}, {}])
def test_an_application_that_fails_anywhere_is_done_or_not(path, base, delta, fault):
    with pair(path, base) as table:
        table.resize(350)
        table.add_column("context", 3)
        change(table, range(0, 350, 3), 6)
        table.export_delta(delta, since=1)
    old, new = state(base), state(path)
    template = base.with_name("template")
    shutil.copytree(base, template)

    def run(report, at):
        with pytest.MonkeyPatch.context() as patch, Faults(at, **fault).installed(patch) as faults:
            try:
                apply(base, delta)
            except OSError:
                return
            report(calls._CALLS, len(faults.log), 0)

    seen = set()
    for at in range(0, 1000, 3):
        shutil.rmtree(base)
        shutil.copytree(template, base)
        said = kills.reports(*kills.in_child(lambda report, at=at: run(report, at)))
        with Table.open(base, "r+") as copy:
            done = copy.step == 6
            if not done:
                assert (copy.step, copy.columns) == (old[2], tuple(old[0]))
                assert np.array_equal(copy[:300].tobytes(), old[0]["weight"])
            seen.add(done)
            copy.apply_delta(delta)
        assert state(base) == new
        if any(calls_made <= at for _, calls_made, _ in said):
            break
    assert at > 60
    assert seen == {False, True}
