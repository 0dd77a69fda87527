"""Tables for the storage tests."""

import os
import pathlib
import tempfile

import pytest

from mmembed import kernels

from .examples import numbered_table, small_table

try:
    kernels.load("cython")
except ImportError:
    kernels.set_backend("reference")


@pytest.fixture
def path(tmp_path):
    """Where a test may create its table."""
    return tmp_path / "items.mmembed"


@pytest.fixture
def quick_path():
    """Where a test may create its table: in memory if there is such a place, for speed."""
    root = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="mmembed-storage-", dir=root) as folder:
        yield pathlib.Path(folder) / "items.mmembed"


@pytest.fixture(params=["disk", "memory"])
def place(request, path):
    """A path, and None: what holds for a table on disk holds for one in memory."""
    return path if request.param == "disk" else None


@pytest.fixture
def table(place):
    """A writable table of 5 rows of 3: row r is r, r + 0.25, r + 0.5."""
    with numbered_table(place) as table:
        yield table


@pytest.fixture
def small(path):
    """The path of a closed table: 5 rows of 3, a scalar column, two commits."""
    return small_table(path)
