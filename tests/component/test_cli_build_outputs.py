"""Files that a host sends for a local output, and hosts that send what can't be."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from cli.build.outputs import Outputs
from cli.build.words import Destination
from model.build import Output
from model.errors import Damaged, FlotaError

Members = list[tarfile.TarInfo]


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **pax: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, link, pax
    return info


def packed(*members: tarfile.TarInfo) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for one in members:
            tar.addfile(one)
    return data.getvalue()


def written(folder: Path, data: bytes) -> None:
    one = Outputs((Destination(output=Output(kind="local"), dest=str(folder)),), lambda _: None)
    one.write(0, data)
    one.finish(0)


@pytest.mark.parametrize(
    "members",
    [
        [member("x", path="a\0b")],
        [member("x", size=str(1 << 70))],
        [member("x", tarfile.SYMTYPE, "y", linkpath="a\0b")],
        [member("x", mtime=str(1 << 70))],
    ],
)
def test_file_that_can_not_be_is_told_in_one_line(tmp_path: Path, members: Members) -> None:
    with pytest.raises(FlotaError) as caught:
        written(tmp_path / "out", packed(*members))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "members",
    [
        [member("../out-of-it")],
        [member("d", tarfile.SYMTYPE, ".."), member("d/out-of-it")],
        [member("d", tarfile.SYMTYPE, "../victim"), member("d", tarfile.LNKTYPE, "../victim/file")],
        [member("d", tarfile.SYMTYPE, "../victim"), member("e", tarfile.LNKTYPE, "d/file")],
    ],
)
def test_host_that_lies_writes_and_links_nothing_outside(tmp_path: Path, members: Members) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/file").write_text("untouched")
    with pytest.raises(FlotaError):
        written(tmp_path / "out", packed(*members))
    assert sorted(os.listdir(tmp_path)) == ["out", "victim"]
    assert (tmp_path / "victim/file").read_text() == "untouched"
    assert os.stat(tmp_path / "victim/file").st_nlink == 1


def test_output_that_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    one = Outputs((Destination(output=Output(kind="image")),), lambda _: None)
    for number in (0, 1, -1):
        with pytest.raises(Damaged, match="nobody asked for"):
            one.write(number, b"x")
