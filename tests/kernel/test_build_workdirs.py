"""WORKDIR in real roots, honest and hostile ones."""

from __future__ import annotations

import os

import pytest

from model.errors import InvalidInput
from tests.support.copies import CopyPlace, Link

pytestmark = pytest.mark.kernel


async def test_workdir_is_made_with_those_above_once(copies: CopyPlace) -> None:
    copies.has(copies.root, {"etc/passwd": "app:x:9:10::/:\n", "to": Link("/real"), "real": None})
    assert await copies.workdir("/w/x", owner="app") and not await copies.workdir("/w/x", owner="4")
    assert await copies.workdir("/to/y") and not await copies.workdir("/")
    seen = copies.seen()
    assert seen["w"] == seen["w/x"] == "d 0755 9:10" and seen["real/y"] == "d 0755 0:0"


async def test_workdir_is_made_at_the_epoch(copies: CopyPlace) -> None:
    await copies.workdir("/w/x", epoch=1000)
    assert [os.stat(copies.root / path).st_mtime for path in ("w", "w/x")] == [1000, 1000]


async def test_workdir_that_leads_out_stays_in_the_root(copies: CopyPlace) -> None:
    """B10."""
    copies.has(
        copies.root, {"out": Link(str(copies.victim)), "top": Link("/"), "up": Link("../../../victim")}
    )
    for path in ("/out/w", "/up/w", "/top/w", "/proc/self/fd/7"):
        assert await copies.workdir(path)
    assert "w" in copies.seen() and "victim/w" in copies.seen()


@pytest.mark.parametrize("kind", ["file", "fifo", "circle"])
async def test_workdir_where_something_else_stands_is_refused(copies: CopyPlace, kind: str) -> None:
    """B10."""
    path = copies.root / "w"
    if kind == "file":
        path.write_text("")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("w")
    with pytest.raises(InvalidInput):
        await copies.workdir("/w")
