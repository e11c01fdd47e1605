"""Images that other tools made are the trees that umoci unpacks. In short a few, all with FLOTA_FULL."""

from __future__ import annotations

import asyncio
import atexit
import functools
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.busybox import root_tar
from image.drivers.overlay import OverlayDriver
from image.drivers.vfs import VfsDriver
from image.registry.client import RegistryClient
from image.store import ImageStore
from tests.kernel.test_image_oracles import EVERY_KIND, described, layout
from tests.support.buildah import Buildah, Step, call, unpacked_tar
from tests.support.images import image
from tests.support.wildtrees import Wild

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(1800)]
Recipe = Callable[[Path], Path]
"""Makes an OCI layout with the tag `it`, gzip, in a folder."""


def busybox(folder: Path) -> Path:
    return asyncio.run(layout(folder, image([root_tar({"etc/hostname": b"box\n"})])))


def every_kind(folder: Path) -> Path:
    return asyncio.run(layout(folder, image(EVERY_KIND)))


def wild(seed: int, form: str = "oci") -> Recipe:
    def grown(root: Path, buildah: Buildah) -> None:
        del buildah
        Wild(root, seed).grow(120)

    def changed(root: Path, buildah: Buildah) -> None:
        del buildah
        tree = Wild(root, seed + 1)
        tree.change(40)
        tree.grow(30)

    return lambda folder: Buildah(folder).image(grown, changed, changed, form=form)


def debian(maker: Callable[[Path], object], *more: Step) -> Recipe:
    """A root that `maker` writes a tar of, and further layers."""

    def recipe(folder: Path) -> Path:
        made = folder / "root.tar"
        maker(made)
        path = Buildah(folder).image(unpacked_tar(made), *more)
        made.unlink()
        return path

    return recipe


@functools.cache
def shelf() -> Path:
    """A folder that goes when these tests end."""
    folder = tempfile.mkdtemp(prefix="flota-roots-")
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


@functools.cache
def bootstrapped(variant: str, *include: str) -> Path:
    """Made once, as it takes minutes; for as long as these tests run."""
    words = (f"--include={','.join(include)}",) if include else ()
    made = shelf() / f"{variant}-{len(include)}.tar"
    call("mmdebstrap", "--mode=root", f"--variant={variant}", *words, "bookworm", made)
    return made


def bootstrap(variant: str, *include: str) -> Callable[[Path], object]:
    return lambda made: made.symlink_to(bootstrapped(variant, *include))


def debootstrap(made: Path) -> None:
    root = made.with_name("debootstrap")
    call("debootstrap", "--variant=minbase", "bookworm", root)
    call("tar", "-C", root, "--xattrs", "--numeric-owner", "-cf", made, ".")
    shutil.rmtree(root)


def install(*packages: str) -> Step:
    command = f"apt-get update -qq && apt-get install -qqy --no-install-recommends {' '.join(packages)}"
    return lambda root, buildah: buildah.run(f"DEBIAN_FRONTEND=noninteractive; {command}")


def purge(*packages: str) -> Step:
    return lambda root, buildah: buildah.run(f"apt-get purge -qqy --auto-remove {' '.join(packages)}")


def folders_gone(root: Path, buildah: Buildah) -> None:
    """Whole folders go and come again, one of them as a link."""
    del buildah
    shutil.rmtree(root / "usr/share/doc")
    shutil.rmtree(root / "var/cache")
    (root / "var/cache").mkdir()
    shutil.rmtree(root / "usr/share/locale")
    (root / "usr/share/locale").symlink_to("doc")


SHORT: dict[str, tuple[Recipe, str]] = {
    "busybox, gzip": (busybox, "gzip"),
    "every kind, zstd": (every_kind, "zstd"),
    "wild 1, gzip": (wild(1), "gzip"),
    "wild 2, zstd": (wild(2), "zstd"),
}
FULL: dict[str, tuple[Recipe, str]] = {
    "busybox, zstd": (busybox, "zstd"),
    "every kind, gzip": (every_kind, "gzip"),
    **{
        f"wild {seed}, {pack}": (wild(seed, "docker" if seed % 3 == 0 else "oci"), pack)
        for seed, pack in enumerate(("gzip", "zstd") * 4, start=3)
    },
    "mmdebstrap apt": (debian(bootstrap("apt")), "zstd"),
    "mmdebstrap minbase": (debian(bootstrap("minbase")), "gzip"),
    "whole folders gone": (debian(bootstrap("apt"), folders_gone), "gzip"),
    "debootstrap minbase": (debian(debootstrap), "zstd"),
    "perl and git": (debian(bootstrap("apt"), install("perl", "git")), "gzip"),
    "python, and purged": (debian(bootstrap("apt"), install("python3"), purge("python3")), "zstd"),
    "capabilities": (debian(bootstrap("apt"), install("iputils-ping", "libcap2-bin")), "gzip"),
    "a web server": (debian(bootstrap("apt"), install("nginx-light"), purge("nginx-light")), "gzip"),
}


class Pulled:
    """An image's layout, in its compression, and the tree that umoci makes of it."""

    def __init__(self, folder: Path, recipe: Recipe, pack: str) -> None:
        self.folder = folder
        made = recipe(folder)
        call("oci-image-tool", "validate", "--type", "image", "--ref", "name=it", made)
        call("umoci", "stat", "--image", f"{made}:it")
        call("umoci", "raw", "unpack", "--image", f"{made}:it", folder / "theirs")
        self.archive = folder / "archive.tar"
        words = ("--dest-compress", "--dest-compress-format", pack)
        call(
            "skopeo", "copy", "--insecure-policy", *words, f"oci:{made}:it", f"oci-archive:{self.archive}:it"
        )


async def pieces(path: Path) -> AsyncIterator[bytes]:
    with open(path, "rb") as file:
        while data := file.read(1 << 20):
            yield data


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """A line for each that there is; empty: none."""
    lines = []
    for name in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(name, ()), theirs.get(name, ())
        if len(one) != len(other):
            lines.append(f"{name!r}: only {'ours' if one else 'theirs'}: {one or other}")
        lines += [f"{name!r}: {a} != {b}" for a, b in zip(one, other, strict=False) if a != b]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("recipe", "pack"),
    [
        *(pytest.param(*case, id=name) for name, case in SHORT.items()),
        *(pytest.param(*case, id=name, marks=pytest.mark.slow) for name, case in FULL.items()),
    ],
)
async def test_image_is_the_tree_that_umoci_unpacks(tmp_path: Path, recipe: Recipe, pack: str) -> None:
    pulled = await asyncio.to_thread(Pulled, tmp_path, recipe, pack)
    theirs = described(tmp_path / "theirs")
    for driver in (OverlayDriver(), VfsDriver()):
        store = ImageStore(tmp_path / driver.name, driver_choice=(driver, "test"), source=RegistryClient())
        await store.open()
        try:
            [record] = await store.load(pieces(pulled.archive))
            await store.prepare_root("c", record.id)
            root = Path((await store.mount_root("c")).path)
            assert differences(described(root), theirs) == "", driver.name
            if pack == "gzip" and driver.name == "overlay2":
                await valid_when_saved(store, record.id, tmp_path)
        finally:
            for made in store.roots():
                await store.remove_root(made.container)
            await store.close()


async def valid_when_saved(store: ImageStore, ident: str, folder: Path) -> None:
    """What `save` writes is an image to the tools of the specification."""
    saved = folder / "saved.tar"
    with open(saved, "wb") as file:
        async for piece in store.save([ident]):
            file.write(piece)
    named = ("skopeo", "copy", "--insecure-policy", f"oci-archive:{saved}", f"oci:{folder}/tagged:it")
    await asyncio.to_thread(call, *named)
    await asyncio.to_thread(
        call, "oci-image-tool", "validate", "--type", "image", "--ref", "name=it", folder / "tagged"
    )
    await asyncio.to_thread(call, "umoci", "stat", "--image", f"{folder}/tagged:it")
