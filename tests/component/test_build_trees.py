"""Files of several platforms' images: from their roots into a folder of the client."""

from __future__ import annotations

import os
import tarfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from agent.build.trees import joined
from cli.parse.copies import Plan
from cli.tars import Stream, unpack
from image.layertar import tree_of
from tests.support.contexts import grow


async def tree(top: Path, under: str) -> AsyncIterator[bytes]:
    for piece in tree_of(os.open(top, os.O_RDONLY | os.O_DIRECTORY), under):
        yield piece


async def test_files_of_two_platforms_lie_beside_each_other(tmp_path: Path) -> None:
    names = ("linux_amd64", "linux_arm_v7")
    for name in names:
        top = grow(tmp_path / name, {"bin/sh": name.encode(), "sh": "bin/sh", "empty": None})
        os.link(top / "bin/sh", top / "bin/second")
    trees = [partial(tree, tmp_path / name, name) for name in names]
    data = b"".join([piece async for piece in joined(trees)])
    (tmp_path / "whole.tar").write_bytes(data)
    with tarfile.open(tmp_path / "whole.tar") as archive:
        found = archive.getnames()
    assert sorted(found) == sorted(
        name + rest for name in names for rest in ("", "/bin", "/bin/second", "/bin/sh", "/empty", "/sh")
    )
    target = tmp_path / "out"
    target.mkdir()
    unpack(Stream([data]), Plan(os.fspath(target)), owners=False, skipped=lambda _: None)
    for name in names:
        assert (target / name / "bin/second").read_bytes() == (target / name / "sh").read_bytes()
        assert (target / name / "bin/sh").read_bytes() == name.encode()
        assert (target / name / "bin/sh").stat().st_ino == (target / name / "bin/second").stat().st_ino
