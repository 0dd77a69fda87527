"""What a table says of its reading and writing."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import mmembed as mm
from mmembed.storage import Table, page_calls, pages, process
from mmembed.storage.distinct import KEEP, Distinct

ROWS, DIM = 40_000, 16  # 64 bytes a row


@pytest.fixture
def table(tmp_path):
    """A table on disk none of whose pages is in memory."""
    Table.create(tmp_path / "t", ROWS, DIM, seed=3).close()
    for name in os.listdir(tmp_path / "t"):
        fd = os.open(tmp_path / "t" / name, os.O_RDONLY)
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    with Table.open(tmp_path / "t", "r+") as opened:
        yield opened


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_few_distinct_numbers_are_counted_exactly(dtype):
    counted = Distinct()

    for first in range(0, 1000, 100):
        counted.add(np.arange(first, first + 500, dtype=dtype).repeat(3))
    counted.add(np.empty(0, dtype))

    assert counted.estimate == 1400


@pytest.mark.parametrize("step", [1, 64, 4097])
def test_many_distinct_numbers_are_estimated_whatever_their_pattern(step):
    counted, rng = Distinct(), np.random.default_rng(0)

    for _ in range(40):
        counted.add(rng.integers(0, 100_000, 8000) * step)

    there = 100_000 * (1 - np.exp(-40 * 8000 / 100_000))
    assert counted.estimate == pytest.approx(there, rel=5 / KEEP**0.5)


def test_rows_and_pages_that_lookups_met_are_told(table):
    table.gather(np.array([0, 0, 1, 64, 6400]))
    table.gather(np.array([1, 6400, 9999]))

    said = table.stats()["columns"]["weight"]

    assert (said["ids"], said["distinct rows"]) == (8, 5)
    assert said["distinct pages"] == 4


def test_the_time_until_rows_are_read_is_told_of_watched_columns_and_no_others(table):
    if not page_calls.BUILT:
        pytest.skip("whether a page is in memory cannot be told here")
    ids = np.random.default_rng(0).integers(0, ROWS, 500)
    emb = mm.Embedding.from_table(table, freeze=True)
    stalled = [table.stats()["columns"]["weight"]["seconds until read"]]

    for look in (table.gather, emb, mm.EmbeddingBag.from_table(table, freeze=True)):
        look(ids.reshape(5, 100))
        stalled.append(table.stats()["columns"]["weight"]["seconds until read"])
    for _ in range(pages.CALM_TO_REST):
        table.gather(ids)
    rests = table.stats()["columns"]["weight"]
    table.gather(ids)
    emb(ids)

    assert stalled[0] == 0 < stalled[1] < stalled[2] < stalled[3]
    assert rests["resting"]
    assert table.stats()["columns"]["weight"]["seconds until read"] == rests["seconds until read"]


@pytest.mark.parametrize("layout", ["columns", "records"])
def test_bytes_written_are_told_per_byte_of_the_rows_that_changed(tmp_path, monkeypatch, layout):
    state = {"weight.sum": {"dim": 4}}
    with Table.create(tmp_path / "t", 100, 8, columns=state, layout=layout) as table:
        with table.writing(np.array([3, 50])) as arrays:
            for name in ("weight", "weight.sum", "weight"):
                arrays[name][[3, 50]] = 1
        counts = {"major faults": 0, "bytes read": 0, "bytes written": 1920}
        monkeypatch.setattr(process, "counters", lambda: counts)
        said = table.stats()

    rows = {"columns": (2, 2), "records": (4, 4)}[layout]
    assert tuple(column["rows changed"] for column in said["columns"].values()) == rows
    assert said["write amplification"] == 1920 / (2 * (32 + 16))


def test_rates_are_those_since_the_last_call(table, monkeypatch):
    counts = {"major faults": 0, "bytes read": 1000, "bytes written": 50}
    monkeypatch.setattr(process, "counters", lambda: dict(counts))
    now = iter([10.0, 12.0])
    table.stats()
    monkeypatch.setattr(process.time, "monotonic", lambda: next(now))
    table.stats()
    counts |= {"bytes read": 5000, "bytes written": 60}

    rates = table.stats()["per second"]

    assert rates == {"seconds": 2.0, "bytes read": 2000.0, "bytes written": 5.0}


def test_the_speed_of_the_disk_is_measured_once_where_it_is_asked_for(table, monkeypatch):
    assert "device" not in table.stats()

    try:
        said = table.stats(probe=0.05)["device"]
    except OSError as error:
        pytest.skip(f"no reading past the page cache here: {error}")

    assert said["bytes read at random"] > 0
    assert said["share"] >= 0
    monkeypatch.setattr(mm.storage.reading, "random_reads", None)
    assert table.stats(probe=9)["device"]["bytes read at random"] == said["bytes read at random"]
    json.dumps(table.stats())


def test_a_table_in_memory_has_sizes_only():
    said = Table.create(None, 5, 2).stats(probe=1)

    assert said["columns"] == {"weight": {"bytes": 40}}
    assert "per second" not in said
    assert "device" not in said
