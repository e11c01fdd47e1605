"""What a container changed as a layer: everything that overlayfs can say, on real mounts."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from image.commit import Commit
from image.drivers.base import StorageDriver
from image.drivers.btrfs import BtrfsDriver
from image.drivers.overlay import OverlayDriver
from image.drivers.vfs import VfsDriver
from image.layertar import packed
from image.registry.client import RegistryClient
from image.store import ImageStore
from model.errors import InUse, Unsupported
from model.image import ImageConfig, ImageRecord
from tests.kernel.test_image_oracles import described, layout, run
from tests.support import btrfs
from tests.support.images import chunks, folder, image, link, member, tar

pytestmark = pytest.mark.kernel
QUIET = ("dev", "etc", "etc/hosts", "proc")
BELOW = tar(
    folder("etc", mtime=10),
    member("etc/issue", b"base", mtime=11),
    folder("dir", mode=0o1777, uid=7, gid=8, mtime=12),
    member("dir/one", b"1", mtime=13),
    member("dir/two", b"2", mtime=14),
    folder("gone", mtime=15),
    member("gone/inside", b"x", mtime=16),
    folder("again", mtime=17),
    member("again/old", b"old", mtime=18),
    member("again/kept", b"kept", mtime=18),
    member("file", b"file", mode=0o640, uid=5, gid=6, mtime=19.25),
    link("link", "file"),
    member("moved", b"moved", mtime=20),
)
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


class Place:
    """A store with an image in it, and one container's root."""

    def __init__(self, base: Path, driver: StorageDriver) -> None:
        self.base = base
        self.store = ImageStore(base / "images", driver_choice=(driver, "test"), source=RegistryClient())
        self.root = Path()
        self.image: ImageRecord

    async def open(self) -> None:
        await self.store.open()
        self.image = await self.store.import_tar(chunks(BELOW), ref="base:1")
        self.root = await self.container("c", self.image)

    async def container(self, name: str, image: ImageRecord) -> Path:
        await self.store.prepare_root(name, image.id)
        return Path((await self.store.mount_root(name)).path)

    async def commit(self, **wish: Any) -> ImageRecord:
        return await self.store.commit("c", Commit(config=ImageConfig(), quiet=QUIET, at=1.0, **wish))

    def layer(self, image: ImageRecord) -> Path:
        """Of its topmost layer, the directory."""
        found = [
            p.parent
            for p in self.base.glob("images/layers/*/link")
            if image.layers[-1].encode() in p.read_bytes()
        ]
        assert len(found) == 1
        return found[0] / "fs"

    async def close(self) -> None:
        for root in self.store.roots():
            await self.store.remove_root(root.container)
        await self.store.close()


@pytest.fixture(params=[OverlayDriver, BtrfsDriver, VfsDriver], ids=["overlay", "btrfs", "vfs"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    driver: StorageDriver = request.param()
    with btrfs.mounted(tmp_path) if driver.name == "btrfs" else nullcontext(tmp_path) as base:
        place = Place(base, driver)
        await place.open()
        yield place
        await place.close()


@pytest.fixture
async def overlay(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path, OverlayDriver())
    await place.open()
    yield place
    await place.close()


def seen(root: Path) -> dict[str, tuple[Any, ...]]:
    """All that there is to a tree: kinds, modes, owners, times, links, attributes, content."""
    found: dict[str, tuple[Any, ...]] = {}
    numbers: dict[int, int] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = os.lstat(path)
        kind = stat.S_IFMT(status.st_mode)
        twin = numbers.setdefault(status.st_ino, len(numbers)) if kind != stat.S_IFDIR else -1
        content: Any = b""
        if kind == stat.S_IFREG:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif kind == stat.S_IFLNK:
            content = os.readlink(path)
        keys = os.listxattr(path, follow_symlinks=False)
        attributes = {key: os.getxattr(path, key, follow_symlinks=False) for key in keys}
        shown = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev)
        found[str(path.relative_to(root))] = (*shown, twin, content, attributes)
    return found


def change_all(root: Path) -> None:
    """At least once each of what can happen to a tree."""
    (root / "file").write_bytes(b"changed")
    os.chmod(root / "dir/one", 0o4755)
    os.chown(root / "dir/one", 1000, 1001)
    (root / "dir/two").unlink()
    shutil.rmtree(root / "gone")
    shutil.rmtree(root / "again")
    (root / "again").mkdir(mode=0o711)
    (root / "again/new").write_bytes(b"new")
    os.rename(root / "moved", root / "elsewhere")
    (root / "link").unlink()
    os.symlink("/dir/./one", root / "link")
    (root / "hard").write_bytes(b"hard")
    os.link(root / "hard", root / "dir/hard")
    (root / "attributed").write_bytes(b"x")
    os.setxattr(root / "attributed", "user.note", b"a\0=\nb")
    os.setxattr(root / "attributed", "security.capability", CAPABILITY)
    os.setxattr(root / "dir", "user.of", b"dir")
    os.utime(root / "attributed", ns=(5, 1_234_567_890_123_456_789))
    os.utime(root / "hard", ns=(5, -1_500_000_000))
    os.mkfifo(root / "pipe")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with open(root / "sparse", "wb") as file:
        file.seek(3 << 20)
        file.write(b"middle")
        file.truncate(8 << 20)
    deep = root.joinpath(*["a-long-name-of-a-folder"] * 8)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"deep")
    (root / os.fsdecode(b"\xff\xfe odd\n")).write_bytes(b"name")
    os.chown(root / "pipe", 3_000_000_000, 3_000_000_001)
    os.utime(root, ns=(1, 77_000_000_001))


async def test_container_of_a_committed_image_has_the_very_tree_that_was_committed(place: Place) -> None:
    change_all(place.root)
    record = await place.commit(ref="made:1")
    again = await place.container("d", record)
    assert seen(again) == seen(place.root)
    assert record.layers[:-1] == place.image.layers and record.names == ("docker.io/library/made:1",)


async def test_committed_layer_packed_again_is_the_same_bytes(place: Place) -> None:
    change_all(place.root)
    record = await place.commit()
    data = b"".join(packed(str(place.layer(record))))
    assert "sha256:" + hashlib.sha256(data).hexdigest() == record.layers[-1]


async def test_commit_of_the_same_changes_gives_the_same_layer_once(place: Place) -> None:
    (place.root / "new").write_bytes(b"x")
    os.utime(place.root / "new", ns=(1, 1))
    os.utime(place.root, ns=(1, 1))
    first, second = await place.commit(ref="a:1"), await place.commit(ref="b:1", message="again")
    assert first.id != second.id and first.layers == second.layers
    assert len(list(place.base.glob("images/layers/*/link"))) == 2
    await place.store.remove("a:1")
    assert len(list(place.base.glob("images/layers/*/link"))) == 2
    await place.store.remove("b:1")
    assert len(list(place.base.glob("images/layers/*/link"))) == 1
    with pytest.raises(InUse):
        await place.store.remove("base:1")


def members(layer: Path, tmp_path: Path) -> list[str]:
    """Names in a layer's tar as GNU tar reads them."""
    archive = tmp_path / "layer.tar"
    archive.write_bytes(b"".join(packed(str(layer))))
    done = subprocess.run(["tar", "-tf", archive, "--quoting-style=escape"], capture_output=True, check=True)
    return sorted(done.stdout.decode().splitlines())


async def test_layer_has_whiteouts_and_opaque_directories_and_no_more(place: Place, tmp_path: Path) -> None:
    (place.root / "dir/two").unlink()
    shutil.rmtree(place.root / "gone")
    shutil.rmtree(place.root / "again")
    (place.root / "again").mkdir()
    (place.root / "again/new").write_bytes(b"new")
    found = members(place.layer(await place.commit()), tmp_path)
    hidden = [name for name in found if ".wh." in name]
    if place.store.driver[0] == "overlay2":
        assert hidden == [".wh.gone", "again/.wh..wh..opq", "dir/.wh.two"]
    else:
        assert hidden == [".wh.gone", "again/.wh.kept", "again/.wh.old", "dir/.wh.two"]
    assert "file" not in found and "dir/one" not in found


async def test_mount_points_of_the_runtime_are_no_change(place: Place, tmp_path: Path) -> None:
    (place.root / "etc/hosts").touch()
    (place.root / "dev").mkdir()
    (place.root / "proc").mkdir()
    assert members(place.layer(await place.commit()), tmp_path) == ["./"]
    (place.root / "etc/mine").write_bytes(b"x")
    assert members(place.layer(await place.commit()), tmp_path) == ["./", "etc/", "etc/mine"]


@pytest.mark.parametrize("name", [".wh.file", "dir/.wh..wh..opq"])
async def test_file_with_the_name_of_a_whiteout_is_refused_and_hides_nothing(place: Place, name: str) -> None:
    (place.root / name).write_bytes(b"x")
    with pytest.raises(Unsupported, match="no layer can hold"):
        await place.commit()


async def test_socket_is_left_out_and_devices_stay(place: Place) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place.root / "socket"))
    os.mknod(place.root / "disk", stat.S_IFBLK | 0o660, os.makedev(7, 1))
    root = await place.container("d", await place.commit())
    assert not (root / "socket").exists() and os.lstat(root / "disk").st_rdev == os.makedev(7, 1)


async def test_hard_link_that_replaced_its_twin_below_is_one_file_again(overlay: Place) -> None:
    os.link(overlay.root / "file", overlay.root / "dir/file")
    root = await overlay.container("d", await overlay.commit())
    assert os.lstat(root / "file").st_ino == os.lstat(root / "dir/file").st_ino
    assert (root / "dir/file").read_bytes() == b"file"


async def test_storage_drivers_own_attributes_never_reach_a_layer(overlay: Place) -> None:
    (overlay.root / "mine").write_bytes(b"x")
    os.setxattr(overlay.root / "mine", "trusted.overlay.opaque", b"y")
    os.setxattr(overlay.root / "mine", "trusted.secret", b"y")
    os.setxattr(overlay.root / "mine", "user.overlay.opaque", b"y")
    data = b"".join(packed(str(overlay.layer(await overlay.commit()))))
    assert b"overlay" not in data and b"trusted" not in data


async def test_sparse_file_takes_no_room_in_the_tar_nor_in_the_layer(overlay: Place) -> None:
    with open(overlay.root / "sparse", "wb") as file:
        file.truncate(1 << 30)
        file.seek(512 << 20)
        file.write(b"here")
    record = await overlay.commit()
    assert sum(map(len, packed(str(overlay.layer(record))))) < 1 << 20
    made = overlay.layer(record) / "sparse"
    assert made.stat().st_blocks * 512 < 1 << 20 and made.stat().st_size == 1 << 30
    with open(made, "rb") as file:
        file.seek(512 << 20)
        assert file.read(5) == b"here\0"


async def test_committed_image_is_the_tree_that_umoci_unpacks_of_it(place: Place, tmp_path: Path) -> None:
    """umoci takes the two layers' tars as it would a registry's."""
    change_all(place.root)
    made = await place.commit()
    upper = b"".join(packed(str(place.layer(made))))
    path = await layout(tmp_path, image([BELOW, upper]))
    await run("umoci", "raw", "unpack", "--image", f"{path}:it", tmp_path / "theirs")
    ours, theirs = described(place.root), described(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    assert [(name, ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]] == []
