"""Fixtures that every test may ask for."""

import platform
import signal
from collections.abc import Iterator

import numpy as np
import pytest

import fastconv
from fastconv import _core

ISAS = {"x86_64": ("avx512", "avx2", "baseline"), "aarch64": ("neon",)}


def pytest_report_header() -> str:
    """The instruction sets that are tested here, and those that are not."""
    tested = _core.available_isas()
    missing = [isa for isa in ISAS.get(platform.machine(), ()) if isa not in tested]
    lacks = f"; not in this build or CPU: {', '.join(missing)}" if missing else ""
    return f"instruction sets: {', '.join(tested)}{lacks}"


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed: a failing test fails again."""
    return np.random.default_rng(20231)


@pytest.fixture(params=[1, 3], ids=lambda count: f"{count}thread")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the test alone and on an odd number of threads; random calls run on two as well."""
    with fastconv.num_threads(request.param):
        yield request.param


@pytest.fixture
def process_threads() -> Iterator[None]:
    """Put the process-wide number of threads back after a test that sets it."""
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts, here and in child processes; a shell's background job ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
