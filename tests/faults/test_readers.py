"""Committed readers see commits, whatever the writer does or dies at."""

from __future__ import annotations

import pytest

from mmembed.errors import CorruptTableError
from mmembed.storage.committed import CommittedView
from tests.storage.mutation import put_in

from . import readers, schedules

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_hundred_thousand_gathers_beside_killed_writers_are_each_of_one_commit(quick_path):
    commits, killed = readers.beside_killed_writers(quick_path, 100_000)

    assert commits > 20
    assert killed > 20


@pytest.mark.parametrize("durability", ["power", "process"])
def test_gathers_of_a_lazy_table_beside_killed_writers_are_each_of_one_commit(
    quick_path, durability
):
    paths = [quick_path.with_name(f"t{number}") for number in range(3)]  # most rows are computed
    runs = [
        readers.beside_killed_writers(path, 6_000, durability=durability, lazy=True)
        for path in paths
    ]
    commits, killed = map(sum, zip(*runs, strict=True))

    assert commits > 2 * len(runs)  # which there were at the start
    assert killed > len(runs)


@pytest.mark.long
@pytest.mark.parametrize("durability", ["power", "process"])
def test_ten_million_gathers_beside_killed_writers_are_each_of_one_commit(quick_path, durability):
    commits, killed = readers.beside_killed_writers(
        quick_path, 5_000_000, readers=6, durability=durability
    )

    assert commits > 2_000
    assert killed > 1_000


MISTAKES = {
    "the attempt does not matter": {
        "_follow": [
            *("header[:2] != moment.header[:2]", "header[:1] != moment.header[:1]"),
            *("header[:2] != self._saved.header[:2]", "header[:1] != self._saved.header[:1]"),
        ],
        "_restore": [
            "after[:2] == saved.header[:2]",
            "after[:1] == saved.header[:1]",
        ],
    },
    "what came meanwhile does not matter": {
        "_follow": ["header[:2] != moment.header[:2]", "False"],
        "_restore": [
            *("after[:2] == saved.header[:2]", "True"),
            *("self._header()[:2] == moment.header[:2]", "True"),
        ],
    },
    "the journal is read before the rows": {
        "gather": [
            *("rows = copy()", "saved = self._follow(moment); rows = copy()"),
            *("self._restore(moment,", "self._restore(moment, saved,"),
        ],
        "_restore": [
            *("moment: _Moment,", "moment: _Moment, saved,"),
            *("saved = self._follow(moment)", "pass"),
        ],
    },
    "records that are not confirmed are taken for a part of the chain": {
        "_follow": ["if header.confirmed > self._link.number:", "if True:"],
        "_take_confirmed": ["while self._link.number < header.confirmed:", "while True:"],
    },
}


def put_in_reader(monkeypatch, mistake):
    for name, texts in MISTAKES[mistake].items():
        put_in(monkeypatch, CommittedView, name, *texts)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_reader_is_caught(quick_path, monkeypatch, mistake):
    put_in_reader(monkeypatch, mistake)

    with pytest.raises((AssertionError, CorruptTableError)):
        schedules.every_schedule(quick_path, seed=2, random=300)


def test_a_writer_may_do_anything_at_any_place_of_a_gather(quick_path):
    assert schedules.every_schedule(quick_path, seed=1, random=400) > 500


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_a_writer_may_do_anything_at_any_places_of_a_gather(quick_path, seed):
    schedules.every_schedule(quick_path, seed=seed, random=50_000)
