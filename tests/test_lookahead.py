"""`lookahead` yields what it is given, in order and unchanged, and has it read before its turn."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import mmembed as mm
from mmembed.storage import readahead
from tests.storage.test_pages import drop_from_memory

ROWS, DIM = 40_000, 16


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    return [rng.integers(0, ROWS, 300) for _ in range(12)]


@pytest.fixture
def table(tmp_path):
    with mm.Table.create(tmp_path / "t", ROWS, DIM) as table:
        yield table


@pytest.mark.parametrize("depth", [0, 1, 3, 100])
def test_batches_come_in_order_and_are_the_very_same_objects(table, batches, depth):
    seen = list(mm.lookahead(batches, table, depth=depth))

    assert len(seen) == len(batches)
    assert all(a is b for a, b in zip(seen, batches, strict=True))


def test_each_loop_begins_anew_and_knows_its_length(table, batches):
    ahead = mm.lookahead(batches, table)

    assert len(ahead) == len(list(ahead)) == len(list(ahead)) == len(batches)


def test_an_iterator_is_drawn_no_further_than_the_depth(table, batches):
    drawn = []

    def source():
        for batch in batches:
            drawn.append(batch)
            yield batch

    for count, _ in enumerate(mm.lookahead(source(), table, depth=3)):
        assert len(drawn) <= count + 1 + 3


@pytest.mark.parametrize(
    ("make", "tables"),
    [
        (lambda a, b: a, lambda s, t: s),
        (lambda a, b: a.tolist(), lambda s, t: s),
        (lambda a, b: mm.tensor(a.reshape(20, 15)), lambda s, t: s),
        (lambda a, b: (a, 1.0), lambda s, t: s),
        (lambda a, b: [a, b], lambda s, t: [s]),
        (lambda a, b: {"x": a, "label": "cat"}, lambda s, t: {"x": s}),
        (lambda a, b: ("label", a), lambda s, t: [None, s]),
        (lambda a, b: ("label", a), lambda s, t: {1: s}),
        (lambda a, b: {"x": a, "y": b}, lambda s, t: {"x": s, "y": t}),
        (lambda a, b: (a, b), lambda s, t: [mm.Embedding.from_table(s), t]),
    ],
)
def test_ids_are_found_in_batches_of_every_form(table, batches, tmp_path, make, tables):
    with mm.Table.create(tmp_path / "other", ROWS, DIM) as other:
        given = make(batches[0], batches[1])
        ahead = mm.lookahead([given, given], tables(table, other))

        first = ahead._read_later(given)

        pages = {1 + int(i) * DIM * 4 // 4096 for i in batches[0]}
        wanted = [p.pages for p in first.portions if p.column is table.column_pages()]
        assert set(np.concatenate(wanted)) == pages


def test_a_function_may_say_which_ids_a_batch_has(table, batches):
    ahead = mm.lookahead([{"deep": [b]} for b in batches], table, ids=lambda b: b["deep"][0])

    assert ahead._read_later({"deep": [batches[0]]}).pages > 0
    assert len(list(ahead)) == len(batches)


def train(emb, batches):
    optimizer = mm.optim.Adagrad(emb.parameters(), lr=0.3)
    for ids in batches:
        optimizer.zero_grad()
        (emb(ids) * emb(ids)).sum().backward()
        optimizer.step()
    return emb.table[:], np.array(emb.table.column("weight.adagrad.sum"))


def test_training_with_lookahead_is_bit_identical_to_training_without(batches, tmp_path):
    results = []
    for name in ("without", "with"):
        emb = mm.Embedding(ROWS, DIM, sparse=True, path=tmp_path / name, init="normal")
        with emb.table.writing() as columns:
            columns["weight"][...] = np.random.default_rng(1).random((ROWS, DIM))
        emb.table.commit()
        drop_from_memory(tmp_path / name)
        ahead = mm.lookahead(batches, emb, depth=4) if name == "with" else batches
        results.append(train(emb, ahead))
        emb.table.close()

    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_states_are_read_along_only_where_gradients_are_recorded(table, batches):
    table.add_column("weight.adagrad.sum", scalar=True)
    emb = mm.Embedding.from_table(table)
    ahead = mm.lookahead(batches, emb)

    training = ahead._read_later(batches[0])
    with mm.no_grad():
        looking = ahead._read_later(batches[1])

    def columns(prefetch):
        asked_for = [portion.column for portion in prefetch.portions]
        return {name for name in table.columns if table.column_pages(name) in asked_for}

    assert columns(training) == {"weight", "weight.adagrad.sum"}
    assert columns(looking) == {"weight"}


@pytest.mark.parametrize(("wrapped", "saved"), [(mm.nn.Embedding.from_table, 2), (bool, 0)])
def test_rows_of_the_next_batch_are_saved_while_this_one_is_trained(tmp_path, wrapped, saved):
    with mm.Table.create(tmp_path / "t", 50, 3) as table:
        rows = table if wrapped is bool else wrapped(table, sparse=True)
        ahead = iter(mm.lookahead([[3, 4], [8, 3, 8]], rows))
        next(ahead)
        log = table._store._files.journal
        if log._thread is not None:
            log._thread.submit(bool).result()

        assert min(log.records, 1) == min(saved, 1)
        assert log._seen.unseen(np.array([3, 4, 8])).size == (0 if saved else 3)
        with mm.no_grad():
            assert list(ahead) == [[8, 3, 8]]


def test_an_error_of_the_source_comes_after_the_batches_before_it(table, batches):
    def source():
        yield from batches[:3]
        raise OSError("the loader failed")

    ahead = mm.lookahead(source(), table, depth=8)
    with pytest.raises(OSError, match="the loader failed"):
        list(ahead)

    assert ahead.yielded == 3


def test_ids_that_are_none_raise_when_it_is_their_turn(table, batches):
    ahead = mm.lookahead([batches[0], [0.5], batches[1]], table)
    with pytest.raises(TypeError, match="ids must be integers"):
        list(ahead)

    assert ahead.yielded == 1


def test_leaving_the_loop_early_forgets_what_was_read_ahead(table, batches):
    for _ in mm.lookahead(batches, table, depth=5):
        break
    readahead.settle()

    assert not table.column_pages()._marks.any()


def test_depth_grows_while_batches_come_late_and_no_further_than_it_may(
    table, batches, monkeypatch
):
    monkeypatch.setattr("mmembed.storage.pages.Prefetch.arrived", lambda self: False)
    ahead = mm.lookahead(batches, table, depth=3)

    list(ahead)

    assert (ahead.depth, ahead.yielded, ahead.late) == (3, 12, 11)


def test_depth_stays_where_batches_are_in_time(table, batches):
    ahead = mm.lookahead(batches, mm.Table.create(None, ROWS, DIM))

    list(ahead)

    assert (ahead.depth, ahead.late) == (1, 0)


def test_pages_waiting_are_bounded_by_memory(table, monkeypatch):
    monkeypatch.setattr("mmembed.upcoming.limit", lambda: 4 * 100 * 4096)
    monkeypatch.setattr("mmembed.storage.pages.ColumnPages.in_memory", lambda *_: False)
    drawn = []
    batches = [64 * np.arange(50 * i, 50 * i + 50) for i in range(12)]  # 50 pages each
    ahead = mm.lookahead((drawn.append(b) or b for b in batches), table, depth=100)
    ahead.depth = 100

    most = max(len(drawn) - count for count, _ in enumerate(ahead, 1))

    assert most == 1


@pytest.mark.parametrize("tables", [3, "words", [mm.nn.Linear(2, 2)], {"x": np.zeros((2, 2))}])
def test_what_has_no_table_is_refused(tables, batches):
    with pytest.raises(TypeError, match="lookahead takes tables"):
        mm.lookahead(batches, tables)


def test_a_depth_below_zero_is_refused(table):
    with pytest.raises(ValueError, match=r"depth must be in 0\.\."):
        mm.lookahead([], table, depth=-1)


def test_one_thread_reads_for_all(table, batches):
    before = threading.active_count()

    for _ in range(3):
        list(mm.lookahead(batches, table))

    assert threading.active_count() <= before + 1
