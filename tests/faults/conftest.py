"""Where fault runs keep their tables."""

import os
import pathlib
import shutil
import tempfile

import pytest


@pytest.fixture
def quick_path():
    """Where a test may create its table: in memory if there is such a place, for speed."""
    root = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mmembed-faults-", dir=root))
    try:
        yield folder / "t"
    finally:
        shutil.rmtree(folder)
