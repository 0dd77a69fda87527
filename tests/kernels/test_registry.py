"""Which body is used, with how many threads."""

from __future__ import annotations

import importlib
import os

import numpy as np
import pytest

from mmembed import kernels
from mmembed.kernels import threads


@pytest.fixture(autouse=True)
def restored():
    before = kernels.backend(), kernels.get_num_threads()
    yield
    kernels.set_backend(before[0])
    kernels.set_num_threads(before[1])


def test_the_chosen_body_is_used_until_another_is_chosen(monkeypatch):
    calls = []
    body = kernels.load("reference")
    monkeypatch.setattr(body, "first_bad_id", lambda *a: calls.append(a) or -1)

    kernels.set_backend("reference")
    kernels.first_bad_id(np.arange(3), 3)

    assert kernels.backend() == "reference"
    assert len(calls) == 1


def test_an_unknown_body_is_refused_and_the_choice_stays():
    before = kernels.backend()

    with pytest.raises(ValueError, match="no kernels called 'fortran'; there are: cython, numba"):
        kernels.set_backend("fortran")

    assert kernels.backend() == before


def test_without_the_compiled_body_numba_is_used_with_a_warning(monkeypatch):
    def load(name):
        if name == "cython":
            raise ImportError("no such module")
        return importlib.import_module("mmembed.kernels.reference")

    monkeypatch.setattr(kernels, "load", load)
    monkeypatch.setattr(kernels, "_chosen", None)

    with pytest.warns(RuntimeWarning, match="using numba.*install gcc with OpenMP"):
        assert kernels.backend() == "numba"


@pytest.mark.parametrize("n", [0, -1, kernels.MAX_THREADS + 1])
def test_a_number_of_threads_that_cannot_be_is_refused(n):
    with pytest.raises(ValueError, match=f"got {n}"):
        kernels.set_num_threads(n)


def test_small_batches_use_one_thread_and_large_ones_all():
    kernels.set_num_threads(3)

    assert threads.threads_for(100) == 1
    assert threads.threads_for(10**6) == 3


@pytest.mark.parametrize("variable", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_what_the_user_has_set_for_openmp_stays(monkeypatch, variable):
    monkeypatch.setenv(variable, "active")

    with threads.short_spins():
        seen = dict(os.environ)

    assert seen[variable] == os.environ[variable] == "active"


def test_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    before = dict(os.environ)

    with threads.short_spins():
        assert os.environ["GOMP_SPINCOUNT"] == "10000"

    assert dict(os.environ) == before


def test_accepts_says_which_arrays_can_be_tables():
    table = np.zeros((4, 6), np.float32)

    for good in (
        table,
        table.astype(np.float64),
        table[:, :3],
        table[::-1],
        table[:0],
        table[:, :0],
    ):
        assert kernels.accepts(good)
    packed = np.zeros(4, np.dtype([("flag", "u1"), ("row", "f4", 6)]))["row"]
    for bad in (
        table.astype(np.float16),
        table.astype(np.int64),
        table.astype(">f4"),
        table[:, ::2],
        table.T,
        table[0],
        table[None],
        packed,
    ):
        assert not kernels.accepts(bad)
