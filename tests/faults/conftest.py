"""Where fault runs keep their tables."""

import os
import pathlib
import shutil
import tempfile

import pytest

from mmembed.storage import column


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of lazy columns of a few rows, so that a table of hundreds has many."""
    monkeypatch.setattr(column, "BLOCK_BYTES", 64)


@pytest.fixture
def quick_path():
    """Where a test may create its table: in memory if there is such a place, for speed."""
    root = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mmembed-faults-", dir=root))
    try:
        yield folder / "t"
    finally:
        shutil.rmtree(folder)
