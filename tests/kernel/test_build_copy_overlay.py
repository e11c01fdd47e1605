"""COPY over the layers of an image, as a step of a build has them: what its own layer holds afterwards."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from image.build.base import RootSource
from image.drivers.overlay import OverlayDriver
from tests.support.copies import CONTEXT, CopyPlace, Link, Wanted, told
from tests.support.images import member, tar

pytestmark = pytest.mark.kernel

BASE = {
    "usr/lib/old": "old",
    "usr/bin": (None, 0o755),
    "lib": Link("usr/lib"),
    "etc/passwd": "app:x:9:10::/:\n",
    "app/x": "before",
    "app/inner/kept": "kept",
    "tmp": (None, 0o1777),
    "d/deep/f": "f",
}
Stacked = Callable[[Wanted], Path]


@pytest.fixture
def stacked(copies: CopyPlace, tmp_path: Path) -> Iterator[Stacked]:
    """Over a layer of these files, the root that COPY writes to; gives its upper directory."""
    driver, made = OverlayDriver(), list[str]()

    def over(files: Wanted) -> Path:
        layer, folder = tmp_path / f"layer{len(made)}", str(tmp_path / f"step{len(made)}")
        layer.mkdir()
        copies.has(layer, files)
        driver.prepare(folder, [str(layer)])
        made.append(folder)
        copies.root = Path(driver.mount(folder, [str(layer)]))
        return Path(driver.upper(folder))

    yield over
    copies.root = copies.base / "root"
    for folder in made:
        driver.unmount(folder)


def layer_of(upper: Path) -> dict[str, str]:
    return {str(path.relative_to(upper)): told(path) for path in sorted(upper.rglob("*"))}


async def test_layer_holds_what_was_copied_and_the_way_there(copies: CopyPlace, stacked: Stacked) -> None:
    upper = stacked(BASE)
    copies.has(copies.context, CONTEXT)
    await copies.copy("sub", target="/app")
    await copies.copy("a.txt", target="/lib/")
    assert layer_of(upper) == {
        "app": "d 0755 0:0",
        "app/x": "f 0644 0:0 xxx",
        "app/inner": "d 0755 0:0",
        "app/inner/y": "f 0400 0:0 yyy",
        "app/away": "l 0:0 /etc/passwd",
        "usr": "d 0755 0:0",
        "usr/lib": "d 0755 0:0",
        "usr/lib/a.txt": "f 0644 0:0 aaa",
    }
    assert (copies.root / "app/inner/kept").read_text() == "kept"


async def test_sticky_directory_of_the_image_stays_one(copies: CopyPlace, stacked: Stacked) -> None:
    upper = stacked(BASE)
    copies.has(copies.context, CONTEXT)
    await copies.copy("a.txt", target="/tmp/", owner="app")
    assert layer_of(upper) == {"tmp": "d 1777 0:0", "tmp/a.txt": "f 0644 9:10 aaa"}


async def test_linked_copy_leaves_nothing_of_its_making(copies: CopyPlace, stacked: Stacked) -> None:
    upper = stacked(BASE)
    copies.has(copies.context, CONTEXT)
    await copies.copy("sub", target="/lib", link=True)
    await copies.copy("a.txt", target="/app", link=True)
    await copies.copy("a.txt", target="/usr/bin/tool", link=True, mode="755")
    await copies.copy("sub", target="/d/deep/f", link=True)
    seen = copies.seen()
    assert seen["lib"] == "d 0755 0:0" and seen["lib/x"] == "f 0644 0:0 xxx"
    assert seen["app"] == "f 0644 0:0 aaa" and seen["d/deep/f/x"] == "f 0644 0:0 xxx"
    assert seen["usr/bin/tool"] == "f 0755 0:0 aaa" and seen["usr/lib/old"] == "f 0644 0:0 old"
    assert not [path for path in layer_of(upper) if "flota" in path]
    whiteouts = [p for p in upper.rglob("*") if stat.S_ISCHR(os.lstat(p).st_mode)]
    assert not whiteouts


async def test_linked_copy_is_the_same_as_its_layer_stacked(copies: CopyPlace, stacked: Stacked) -> None:
    copies.has(copies.context, CONTEXT)
    stacked(BASE)
    for sources, target in ((("sub",), "/app"), (("sub",), "/lib"), (("a.txt", "run"), "/usr/lib/")):
        await copies.copy(*sources, target=target, link=True, owner="3:4")
    straight = copies.seen()
    base, alone = dict(BASE), copies.base / "alone"
    for sources, target in ((("sub",), "/app"), (("sub",), "/lib"), (("a.txt", "run"), "/usr/lib/")):
        alone.mkdir()
        copies.root = alone
        await copies.copy(*sources, target=target, link=True, owner="3:4")
        alone.rename(copies.base / f"alone-{target.strip('/').replace('/', '-')}")
    driver, folder = OverlayDriver(), str(copies.base / "stack")
    layers = [copies.base / "bottom", *(copies.base / f"alone-{n}" for n in ("app", "lib", "usr-lib"))]
    layers[0].mkdir()
    copies.has(layers[0], base)
    driver.prepare(folder, [str(layer) for layer in layers])
    root = Path(driver.mount(folder, [str(layer) for layer in layers]))
    try:
        assert copies.seen(root) == straight
    finally:
        driver.unmount(folder)


async def test_archive_over_an_image_replaces_and_joins(copies: CopyPlace, stacked: Stacked) -> None:
    stacked(BASE)
    copies.has(copies.context, {"a.tar": tar(member("app", b"file now"), member("d/deep/g", b"g", uid=3))})
    await copies.add("a.tar", target="/")
    seen = copies.seen()
    assert seen["app"].endswith("file now") and seen["d/deep/f"].endswith(" f")
    assert seen["d/deep/g"] == "f 0644 3:0 g" and "app/x" not in seen


async def test_stage_over_layers_is_read_as_it_is_shown(copies: CopyPlace, stacked: Stacked) -> None:
    """Hard links below, a file that was removed above, a directory that was made again."""
    stacked({**BASE, "h/one": "1"})
    os.link(copies.root / "h/one", copies.root / "h/two")
    os.unlink(copies.root / "app/x")
    os.setxattr(copies.root / "d/deep", "user.note", b"n")
    source, key = RootSource(path=str(copies.root)), None
    for _ in range(2):
        chosen = await copies.choose(".", place=source)
        assert key in (None, chosen.key)
        key = chosen.key
    shown = copies.seen()
    copies.root = copies.base / "root"
    await copies.copy("/", target="/", place=source)
    assert copies.seen() == shown and "app/x" not in shown
    assert os.stat(copies.root / "h/one").st_ino == os.stat(copies.root / "h/two").st_ino
    assert os.getxattr(copies.root / "d/deep", "user.note") == b"n"
    assert not [
        k for p in copies.root.rglob("*") for k in os.listxattr(p, follow_symlinks=False) if "overlay" in k
    ]
