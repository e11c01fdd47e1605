"""Fixtures of the component tier."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.dockerclient import Docker, served


@pytest.fixture
async def docker(tmp_path: Path) -> AsyncIterator[Docker]:
    async with served(tmp_path) as made:
        yield made
