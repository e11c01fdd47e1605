"""Directories of layers by paths that a confined process wrote: none leads out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from image import implied
from image.lower import LowerLayers, enter


@pytest.mark.parametrize("path", ["..", "a/..", "a/../..", "", ".", "a//b", "a/."])
def test_path_with_what_is_no_name_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "layer/a/b").mkdir(parents=True)
    top = os.open(tmp_path / "layer", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.close(enter(top, (b"a", b"b")))
        with pytest.raises(OSError, match="not a name"):
            enter(top, os.fsencode(path).split(b"/"))
        with pytest.raises(OSError, match="not a name"):
            enter(top, (os.fsencode(f"a/{path}"),))
    finally:
        os.close(top)


def test_implied_folder_outside_the_layer_is_left_as_it_is(tmp_path: Path) -> None:
    for folder in ("layers/1", "layers/2"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "layers").chmod(0o711)
    (tmp_path / "layers/1").chmod(0o700)
    lower = LowerLayers([str(tmp_path / "layers/1")])
    top = os.open(tmp_path / "layers/2", os.O_RDONLY | os.O_DIRECTORY)
    before = (tmp_path / "layers").stat().st_mtime_ns, (tmp_path / "layers").stat().st_ctime_ns
    try:
        implied.settle(top, [b"/.."], lower)
    finally:
        os.close(top)
        lower.close()
    assert ((tmp_path / "layers").stat().st_mtime_ns, (tmp_path / "layers").stat().st_ctime_ns) == before
