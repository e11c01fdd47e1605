"""Fixtures of builds' steps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.buildlab import BuildLab, build_lab


@pytest.fixture
async def building(tmp_path: Path) -> AsyncIterator[BuildLab]:
    """Steps in real containers; nothing may be left of them."""
    async with build_lab(tmp_path) as lab:
        yield lab
        assert lab.left() == []
