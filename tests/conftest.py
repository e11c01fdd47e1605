"""Fixtures of every tier. Kernel and rig tests fail, not skip, without root."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from hypothesis import HealthCheck, settings

from tests.support import census

FULL = os.environ.get("FLOTA_FULL") == "1"
# How long examples take, or are drawn, says how busy the machine is; pytest's own time limit ends what hangs.
settings.register_profile("flota", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("flota")


def pytest_configure() -> None:
    """A shell that runs this in the background has set SIGINT to be ignored, which children inherit; the
    tests of ctrl-c need it as it is for a person."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`slow` tests run with FLOTA_FULL=1 (`deploy/test --full`); without it they are not part of the run."""
    if FULL:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(autouse=True)
def kernel_census(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each kernel test everything that it made in the kernel is gone."""
    kernel = request.node.get_closest_marker("kernel") is not None
    assert not kernel or os.geteuid() == 0, "kernel tests need root: sudo deploy/test"
    with census.unchanged() if kernel else nullcontext():
        yield
