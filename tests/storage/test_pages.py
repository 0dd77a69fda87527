"""Planned reading: the right pages are asked for, once, and only while it pays."""

from __future__ import annotations

import mmap
import os
import weakref

import numpy as np
import pytest

import mmembed as mm
from mmembed import memory
from mmembed.errors import ClosedTableError
from mmembed.storage import Table, page_calls, pages, readahead

ROWS, DIM = 40_000, 16  # 64 bytes a row, 64 rows a page of 4096 bytes
BODIES = ["built", "in_python"]


def drop_from_memory(path):
    """Write a table's files to the disk and let the system forget their pages."""
    for name in os.listdir(path):
        fd = os.open(path / name, os.O_RDONLY)
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


@pytest.fixture
def cold(tmp_path):
    """A table on disk none of whose pages is in memory."""
    Table.create(tmp_path / "t", ROWS, DIM, seed=3).close()
    drop_from_memory(tmp_path / "t")
    table = Table.open(tmp_path / "t")
    own = table.column_pages()
    if not page_calls.BUILT or own.in_memory(np.arange(1, 600)):
        pytest.skip("whether a page is in memory cannot be told here")
    yield table
    table.close()


@pytest.fixture
def ids():
    return np.random.default_rng(0).integers(0, ROWS, 500)


def pages_by_hand(ids, row_bytes, first, size):
    """The distinct pages that bytes of rows lie in."""
    return sorted(
        {(first + row * row_bytes + at) // size for row in ids for at in range(row_bytes)}
    )


def body_of(name, body):
    if body == "in_python":
        return getattr(page_calls, f"{name}_in_python")
    if not page_calls.BUILT:
        pytest.skip("the calls are not built")
    return getattr(page_calls, name)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("row_bytes", [4, 12, 64, 1000, 4096, 5000, 9000])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_the_pages_of_rows_are_those_that_their_bytes_lie_in(body, row_bytes, dtype):
    ids = np.array([0, 7, 7, 39, 3, -1, 40, 12], dtype)
    marks = np.zeros(200, np.uint8)
    out = np.empty(ids.size * 5, np.int64)

    count = body_of("pages_of", body)(ids, 40, row_bytes, 4096, 12, marks, 2, out)

    inside = [int(i) for i in ids if 0 <= i < 40]
    assert sorted(set(out[:count].tolist())) == pages_by_hand(inside, row_bytes, 4096, 4096)


@pytest.mark.parametrize("body", BODIES)
def test_pages_that_bear_the_mark_are_passed_over(body):
    marks = np.zeros(200, np.uint8)
    marks[[2, 5]] = 2, 1
    out = np.empty(8, np.int64)

    count = body_of("pages_of", body)(np.array([64, 64 * 4, 0]), 9999, 64, 4096, 12, marks, 2, out)

    assert sorted(out[:count]) == [1, 5]


@pytest.mark.parametrize("body", BODIES)
def test_neighbouring_pages_are_asked_for_in_one_call_and_marked(body):
    memory = mmap.mmap(-1, 20 * 4096)
    address = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    marks = np.zeros(21, np.uint8)
    marks[9] = 2
    wanted = np.array([1, 1, 2, 3, 7, 8, 9, 10, 19])

    done = body_of("read_ahead", body)(address, len(memory), 12, wanted, marks, 2, 2)

    assert done == (4, 7)  # 1-3, 7-8, 10, 19
    assert np.flatnonzero(marks == 2).tolist() == [1, 2, 3, 7, 8, 9, 10, 19]


def test_a_cold_gather_asks_for_each_page_once_and_gives_the_rows(cold, ids):
    rows = cold.gather(ids)

    expected = np.empty((ROWS, DIM), np.float32)
    cold._store.superblock.columns[0].init.fill(expected, 0, 3)
    np.testing.assert_array_equal(rows, expected[ids])
    distinct = pages_by_hand(ids, 64, 4096, mmap.PAGESIZE)
    assert cold.column_pages().asked == len(distinct)
    assert cold.column_pages().calls <= len(distinct)


def test_a_cold_gather_brings_in_the_pages_it_asks_for_and_no_others(cold):
    cold.gather(np.array([1000, 30_000]))

    own = cold.column_pages()
    # Opening read the header, and with it the first few pages.
    there = [p for p in range(8, 600) if page_calls.resident(own._address, 12, np.array([p]))]
    assert there == pages_by_hand([1000, 30_000], 64, 4096, 4096)


def test_a_table_in_memory_is_put_to_rest_and_asked_no_more(cold, ids):
    for _ in range(pages.CALM_TO_REST + 1):
        cold.gather(ids)
    asked = cold.column_pages().asked

    cold.gather(ids)

    assert cold.column_pages().resting
    assert cold.column_pages().asked == asked


def test_page_faults_wake_a_resting_column(cold, ids, monkeypatch):
    for _ in range(pages.CALM_TO_REST + 1):
        cold.gather(ids)
    faults = iter(range(0, 10**6, 100))
    monkeypatch.setattr(page_calls, "major_faults", lambda: next(faults))

    many = np.resize(ids, pages.LOOK_EVERY + 1)
    cold.gather(many)
    cold.gather(many)

    assert not cold.column_pages().resting


@pytest.mark.parametrize(("faults", "wakes"), [(1, True), (0, False)])
def test_few_page_faults_that_read_much_wake_a_resting_column(
    cold, ids, monkeypatch, faults, wakes
):
    for _ in range(pages.CALM_TO_REST + 1):
        cold.gather(ids)
    counted, read = page_calls.major_faults(), page_calls.bytes_read()
    monkeypatch.setattr(page_calls, "major_faults", lambda: counted + faults)
    monkeypatch.setattr(page_calls, "bytes_read", lambda: read + (8 << 20))

    cold.gather(np.resize(ids, pages.LOOK_EVERY + 1))

    assert cold.column_pages().resting != wakes


def test_a_column_whose_samples_are_in_memory_does_not_rest_while_the_process_reads(
    cold, ids, monkeypatch
):
    read = iter(range(0, 1 << 40, 1 << 20))
    monkeypatch.setattr(page_calls, "bytes_read", lambda: next(read))

    for _ in range(3 * pages.CALM_TO_REST):
        cold.gather(ids)

    assert not cold.column_pages().resting


@pytest.mark.parametrize(("limit", "alone"), [(1 << 20, True), (1 << 40, False)])
def test_faults_in_a_table_larger_than_memory_read_nothing_else_also_when_it_rests(
    cold, ids, monkeypatch, limit, alone
):
    monkeypatch.setattr(memory, "limit", lambda: limit)

    for _ in range(pages.CALM_TO_REST + 1):
        cold.gather(ids)

    assert cold.column_pages().resting
    assert cold.column_pages()._random == alone


def test_what_batches_read_ahead_leave_to_ask_for_puts_no_column_to_rest(cold, ids):
    cold.gather(ids[:50])
    cold.prefetch(ids[100:])
    readahead.settle()

    for _ in range(pages.ASIDE - 1):
        cold.gather(ids[:50])  # all in memory
    rested = cold.column_pages().resting
    for _ in range(pages.CALM_TO_REST):
        cold.gather(ids[:50])

    assert not rested
    assert cold.column_pages().resting


def test_a_batch_of_which_the_system_did_not_read_a_page_or_two_has_arrived(cold, monkeypatch):
    there = np.arange(100, 100 + pages.SAMPLE)
    monkeypatch.setattr(page_calls, "resident", lambda *_: found)
    portion = pages.Portion(cold.column_pages(), there)

    found = pages.SAMPLE - pages.LATE
    assert pages.Prefetch([portion]).arrived()
    found -= 1
    assert not pages.Prefetch([portion]).arrived()


def test_prefetched_pages_are_not_asked_for_again_until_later_ones_have_come(cold, ids):
    cold.prefetch(ids)
    readahead.settle()
    own = cold.column_pages()
    ahead = own.ahead

    cold.gather(ids)
    asked_once = own.asked
    for i in range(pages.LOOSE + 1):
        cold.prefetch(np.array([i * 64]))
    readahead.settle()
    cold.gather(ids)

    assert ahead == asked_once == len(pages_by_hand(ids, 64, 4096, mmap.PAGESIZE))
    assert own.asked > asked_once


def test_prefetch_reads_states_too_and_changes_nothing(tmp_path, ids):
    with Table.create(tmp_path / "t", ROWS, DIM) as table:
        table.add_column("weight.sum", scalar=True)
        before = table[:]

        table.prefetch(ids)
        table.prefetch(ids.reshape(10, 50).tolist(), ["weight.sum"])
        readahead.settle()

        np.testing.assert_array_equal(table[:], before)


def test_prefetch_says_what_is_wrong_with_its_arguments(tmp_path):
    table = Table.create(tmp_path / "t", 5, 3)

    with pytest.raises(IndexError, match=r"id 7 at 1 is outside the table, which has 5 rows"):
        table.prefetch([0, 7])
    with pytest.raises(TypeError, match="ids must be integers"):
        table.prefetch([0.5])
    with pytest.raises(KeyError, match="no column 'other'"):
        table.prefetch([0], ["other"])
    table.close()
    with pytest.raises(ClosedTableError):
        table.prefetch([0])


def test_prefetch_of_a_table_in_memory_or_without_bytes_does_nothing(tmp_path):
    Table.create(None, 5, 3).prefetch([1])
    with Table.create(tmp_path / "t", 5, 0) as table:
        table.prefetch([1])
        assert table.gather([1]).shape == (1, 0)
    with Table.create(tmp_path / "u", 0, 3) as table:
        table.prefetch([])


def test_a_table_may_be_closed_and_grown_while_its_pages_are_being_read(tmp_path, ids):
    table = Table.create(tmp_path / "t", ROWS, DIM)
    for _ in range(20):
        table.prefetch(ids)
    table.resize(2 * ROWS)
    table.prefetch(ids + ROWS)
    expected = table.gather(ids + ROWS)
    for _ in range(20):
        table.prefetch(ids)
    table.close()
    readahead.settle()

    with Table.open(tmp_path / "t") as table:
        np.testing.assert_array_equal(table[ids + ROWS], expected)


def test_a_closed_table_gives_its_map_back(tmp_path, ids):
    table = Table.create(tmp_path / "t", ROWS, DIM)
    table.prefetch(ids)
    own = weakref.ref(table.column_pages())

    table.close()

    assert own() is None


def test_without_the_compiled_calls_a_thread_in_python_reads(tmp_path, ids, monkeypatch):
    monkeypatch.setattr(page_calls, "Job", None)
    Table.create(tmp_path / "t", ROWS, DIM).close()
    drop_from_memory(tmp_path / "t")
    with Table.open(tmp_path / "t") as table:
        own = table.column_pages()
        with_job = len(pages_by_hand(ids, 64, 4096, mmap.PAGESIZE))
        table.prefetch(ids)
        readahead.settle()
        assert own.ahead in (with_job, 0)  # 0: where files are in memory whatever one does
        for _ in range(pages.LOOSE + 1):
            own.keep(pages.Portion(own, np.array([1])))
        assert not own._marks.any()


def test_a_forked_child_reads_ahead_on_a_thread_of_its_own(tmp_path, ids):
    Table.create(tmp_path / "t", ROWS, DIM).close()
    with Table.open(tmp_path / "t") as table:
        table.prefetch(ids)
        child = os.fork()
        if child == 0:
            table.prefetch(ids)
            readahead.settle()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_training_a_cold_table_reads_its_states_ahead_and_changes_no_result(tmp_path, ids):
    def train(emb):
        optimizer = mm.optim.Adagrad(emb.parameters(), lr=0.5)
        if emb.table.on_disk:
            emb.table.commit()
            drop_from_memory(tmp_path / "t")
        emb(ids).sum().backward()
        readahead.settle()
        ahead = emb.table.on_disk and emb.table.column_pages("weight.adagrad.sum").ahead
        optimizer.step()
        return ahead

    emb = mm.Embedding(ROWS, DIM, sparse=True, path=tmp_path / "t")
    twin = mm.Embedding(ROWS, DIM, sparse=True, _weight=np.array(emb.table))

    ahead = train(emb)
    train(twin)

    np.testing.assert_array_equal(emb.table[:], twin.table[:])
    state = emb.table.column_pages("weight.adagrad.sum")
    if page_calls.BUILT and not emb.table.column_pages().resting:
        # On a busy machine the update may find them still on their way, and ask again.
        assert 0 < ahead <= state.asked
    emb.table.close()


def test_recovery_asks_for_the_pages_of_the_rows_that_it_puts_back(tmp_path):
    path = tmp_path / "t"
    Table.create(path, ROWS, DIM, init="zeros").close()
    rows = np.arange(0, ROWS, 100)
    if (child := os.fork()) == 0:  # ends without `close`
        Table.open(path, "r+").write(rows, np.ones((rows.size, DIM)))
        os._exit(0)
    os.waitpid(child, 0)
    drop_from_memory(path)

    with Table.open(path, "r+") as table:
        own = table.column_pages()
        if not page_calls.BUILT:
            pytest.skip("whether a page is in memory cannot be told here")
        assert own.asked == rows.size
        assert not table[rows].any()
