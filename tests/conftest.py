"""What every test may use: each kernel body in turn, and how hard hypothesis tries."""

from __future__ import annotations

import os

import hypothesis
import pytest

from mmembed import kernels

# A busy machine is no failure.
PATIENT = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("default", max_examples=60, derandomize=True, **PATIENT)
hypothesis.settings.register_profile("long", max_examples=2000, **PATIENT)
hypothesis.settings.load_profile(os.environ.get("MMEMBED_HYPOTHESIS", "default"))

REQUIRED = os.environ.get("MMEMBED_REQUIRE", ",".join(kernels.NAMES)).split(",")


@pytest.fixture(scope="session", params=kernels.NAMES)
def body_name(request):
    """Every kernel body's name in turn; MMEMBED_REQUIRE lists what may not be skipped."""
    try:
        kernels.load(request.param)
    except ImportError as error:
        if request.param in REQUIRED:
            raise
        pytest.skip(f"{request.param} kernels: {error}")
    return request.param


@pytest.fixture(scope="session")
def body(body_name):
    """Every kernel body in turn."""
    return kernels.load(body_name)


@pytest.fixture(scope="module")
def backend(body_name):
    """Every kernel body in turn, in use for the whole library."""
    before = kernels.backend()
    kernels.set_backend(body_name)
    yield body_name
    kernels.set_backend(before)
