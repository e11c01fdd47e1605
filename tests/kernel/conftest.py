"""Fixtures of the kernel tier."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.containers import Lab, network_namespace


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Real containers from a busybox root in a network namespace of their own."""
    with network_namespace() as netns:
        lab = Lab(tmp_path, netns)
        yield lab
        await lab.close()
