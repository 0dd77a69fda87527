"""A training that was killed, however often, ends with the bits of one that was not."""

from __future__ import annotations

import os
import random
import signal
import time

import numpy as np
import pytest

from mmembed.errors import CorpusError
from mmembed.storage import Table
from mmembed.training import Settings, create_table, recorded_settings, train

from .test_skipgram import corpus_of

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

SETTINGS = Settings(dim=6, epochs=3, blocks=2, sample=0, seed=4)


def columns(table):
    return {name: table.column(name).copy() for name in table.columns}


def check_same(found, expected):
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        assert np.array_equal(found[name], rows), name


@pytest.fixture
def corpus():
    return corpus_of(30)


@pytest.fixture
def whole(tmp_path, corpus):
    """Everything that a training which nobody disturbed leaves."""
    with create_table(tmp_path / "whole", corpus, SETTINGS) as table:
        train(table, corpus, SETTINGS)
        return columns(table), table.counters, table.step, table.metadata


def trained_to_the_end(path, corpus, **options):
    with Table.open(path, "r+") as table:
        assert train(table, corpus, SETTINGS, **options)
        return columns(table), table.counters, table.step, table.metadata


def kill_one(path, corpus, seconds):
    """Go on with the training in a child, with a commit after each step, and kill it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            train(
                *(Table.open(path, "r+"), corpus, SETTINGS),
                commit_every=0,
                should_stop=lambda: not os.write(writing, b"1"),
            )
        finally:
            os._exit(0)
    os.close(writing)
    os.read(reading, 1)  # a step was made, or all of them were before
    os.close(reading)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_training_stopped_between_any_two_steps_goes_on_with_the_same_bits(
    tmp_path, corpus, whole, threads
):
    path = tmp_path / "parts"
    create_table(path, corpus, SETTINGS).close()
    finished, rounds = False, 0
    while not finished:
        rounds += 1
        left = iter([False, False, True])
        with Table.open(path, "r+") as table:
            finished = train(
                *(table, corpus, SETTINGS),
                threads=threads,
                should_stop=lambda left=left: next(left),
            )
    with Table.open(path) as table:
        check_same(columns(table), whole[0])
        assert (table.counters, table.step, table.metadata) == whole[1:]
    assert rounds > 5


def test_a_training_killed_at_random_moments_ends_with_the_same_bits(tmp_path, corpus, whole):
    path, chance, steps = tmp_path / "killed", random.Random(1), []
    create_table(path, corpus, SETTINGS).close()
    for _ in range(12):
        kill_one(path, corpus, chance.uniform(0, 0.01))
        with Table.open(path) as table:
            steps.append(table.step)

    found, *others = trained_to_the_end(path, corpus)

    check_same(found, whole[0])
    assert tuple(others) == whole[1:]
    assert steps == sorted(steps)
    assert steps[-1] > 0


def test_a_finished_training_stays_as_it_is(tmp_path, corpus, whole):
    found, *others = trained_to_the_end(tmp_path / "whole", corpus)

    check_same(found, whole[0])
    assert tuple(others) == whole[1:]


def test_a_training_goes_on_only_with_its_text_and_settings(tmp_path, corpus):
    with create_table(tmp_path / "t", corpus, SETTINGS) as table:
        with pytest.raises(CorpusError, match=r"is not the one that .* was trained on"):
            train(table, corpus_of(31), SETTINGS)
        with pytest.raises(ValueError, match="the training was begun with Settings"):
            train(table, corpus, Settings(dim=6))
        assert recorded_settings(table) == SETTINGS
    with (
        Table.create(None, 3, 3) as table,
        pytest.raises(CorpusError, match="has no training to go on with"),
    ):
        train(table, corpus, SETTINGS)
