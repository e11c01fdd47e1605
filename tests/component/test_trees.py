"""Directories taken away while others are at them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.trees import remove_tree


def grow(folder: Path) -> Path:
    for number in range(40):
        (folder / f"{number % 4}/{number}").mkdir(parents=True)
    return folder


async def test_tree_that_two_remove_at_once_is_gone_for_both(tmp_path: Path) -> None:
    for turn in range(40):
        folder = grow(tmp_path / f"{turn}")
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(asyncio.to_thread(remove_tree, folder))
        assert not folder.exists()


def test_tree_that_can_not_be_removed_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        remove_tree(tmp_path / "file/below")
