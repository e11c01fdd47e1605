"""A registry of its own for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fleetregistry import Client, Served, serving


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def client(served: Served) -> Client:
    return served.client
