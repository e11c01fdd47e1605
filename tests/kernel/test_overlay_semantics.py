"""What overlayfs promises (kernel doc filesystems/overlayfs.rst), by programs in real containers; then the
same tree as a layer, in another container and as umoci unpacks it."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.busybox import root_tar
from image.commit import Commit
from image.drivers.base import StorageDriver
from image.drivers.overlay import OverlayDriver
from image.drivers.vfs import VfsDriver
from image.registry.client import RegistryClient
from image.store import ImageStore
from model.image import ImageConfig, ImageRecord
from tests.kernel.test_image_oracles import described
from tests.support.buildah import call
from tests.support.containers import Lab
from tests.support.images import chunks, folder, image, link, member, oci_archive, tar
from tests.support.imagestores import disk_usage

pytestmark = pytest.mark.kernel

NOTED = member("data/noted", b"noted", mtime=106)
NOTED[0].pax_headers = {"SCHILY.xattr.user.note": "below"}
BELOW = [
    root_tar(),
    tar(
        folder("data", mtime=100),
        member("data/file", b"below", mode=0o640, uid=5, gid=6, mtime=101.5),
        member("data/big", bytes(range(256)) * 4096, mtime=102),
        member("data/twin", b"twin", mtime=103),
        link("data/other-twin", "data/twin", hard=True),
        link("data/link", "file"),
        folder("data/dir", mode=0o2755, mtime=104),
        member("data/dir/one", b"1", mtime=105),
        member("data/dir/two", b"2", mtime=105),
        NOTED,
    ),
]


class Stage:
    """An image of two layers, and containers of it."""

    def __init__(self, base: Path, lab: Lab, driver: StorageDriver) -> None:
        self.base = base
        self.lab = lab
        self.store = ImageStore(base / "images", driver_choice=(driver, "test"), source=RegistryClient())
        self.image: ImageRecord

    async def open(self) -> None:
        await self.store.open()
        [self.image] = await self.store.load(chunks(oci_archive(image(BELOW), name="below:1")))

    async def root(self, name: str, made: ImageRecord | None = None) -> Path:
        await self.store.prepare_root(name, (made or self.image).id)
        return Path((await self.store.mount_root(name)).path)

    async def run(self, root: Path, script: str, *, read_only: bool = False) -> str:
        ended, said = await self.lab.run(script, rootfs=str(root), read_only=read_only, cap_add=("MKNOD",))
        assert ended.code == 0, said
        return said

    def upper(self, name: str) -> dict[str, str]:
        """What the writable layer holds, by the letters of `ls`: d f l p c, and w for a whiteout."""
        top = self.base / "images/roots" / name / "upper"
        found = {}
        for path in sorted(top.rglob("*")):
            status = os.lstat(path)
            letter = stat.filemode(status.st_mode)[0].replace("-", "f")
            whiteout = letter == "c" and status.st_rdev == 0
            found[path.relative_to(top).as_posix()] = "w" if whiteout else letter
        return found

    def layers(self) -> list[object]:
        return [described(path) for path in sorted(self.base.glob("images/layers/*/fs"))]

    async def commit(self, name: str) -> ImageRecord:
        return await self.store.commit(name, Commit(config=ImageConfig(), at=1.0))

    async def umoci(self, made: ImageRecord) -> Path:
        """The tree that it makes of the image as we save it."""
        saved, layout, target = (self.base / name for name in ("saved.tar", "layout", "theirs"))
        with open(saved, "wb") as file:
            async for piece in self.store.save([made.id]):
                file.write(piece)
        for words in (
            ("skopeo", "copy", "--insecure-policy", f"oci-archive:{saved}", f"oci:{layout}:it"),
            ("oci-image-tool", "validate", "--type", "image", "--ref", "name=it", layout),
            ("umoci", "raw", "unpack", "--image", f"{layout}:it", target),
        ):
            await asyncio.to_thread(call, *words)
        return target

    async def close(self) -> None:
        for root in self.store.roots():
            await self.store.remove_root(root.container)
        await self.store.close()


@pytest.fixture
async def stage(tmp_path: Path, lab: Lab) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path, lab, OverlayDriver())
    await stage.open()
    yield stage
    await stage.close()


Act = str | Callable[[Path], None]
ACTS: dict[str, tuple[Act, dict[str, str], str]] = {
    "a file is written to": (
        "echo above >> /data/file",
        {"data/file": "f"},
        "[ $(cat /data/file) = belowabove ]",
    ),
    "a file gets another mode": (
        "chmod 4755 /data/file",
        {"data/file": "f"},
        "[ $(cat /data/file) = below ] && [ -u /data/file ]",
    ),
    "a file gets another owner": (
        "chown 7:8 /data/file",
        {"data/file": "f"},
        "[ $(stat -c %u:%g:%a /data/file) = 7:8:640 ]",
    ),
    "a file gets another time": (
        "touch -d @5 /data/file",
        {"data/file": "f"},
        "[ $(stat -c %Y /data/file) = 5 ]",
    ),
    "a file is cut off": ("truncate -s 3 /data/big", {"data/big": "f"}, "[ $(stat -c %s /data/big) = 3 ]"),
    "a file goes": ("rm /data/file", {"data/file": "w"}, "! [ -e /data/file ]"),
    "a link goes": ("rm /data/link", {"data/link": "w"}, "! [ -L /data/link ] && [ -e /data/file ]"),
    "a folder goes": ("rm -r /data/dir", {"data/dir": "w"}, "! [ -e /data/dir ]"),
    "a folder is made again": (
        "rm -r /data/dir && mkdir /data/dir && echo 3 > /data/dir/three",
        {"data/dir": "d", "data/dir/three": "f"},
        "[ $(ls /data/dir) = three ]",
    ),
    "a file takes a folder's place": (
        "rm -r /data/dir && echo x > /data/dir",
        {"data/dir": "f"},
        "[ $(cat /data/dir) = x ]",
    ),
    "a folder takes a file's place": (
        "rm /data/file && mkdir /data/file && touch /data/file/in",
        {"data/file": "d", "data/file/in": "f"},
        "[ $(ls /data/file) = in ]",
    ),
    "a file in a folder changes": (
        "echo x >> /data/dir/one",
        {"data/dir": "d", "data/dir/one": "f"},
        "[ $(cat /data/dir/two) = 2 ] && [ -g /data/dir ]",
    ),
    "a file is renamed": (
        "mv /data/file /data/moved",
        {"data/file": "w", "data/moved": "f"},
        "[ $(cat /data/moved) = below ]",
    ),
    "a file is renamed over another": (
        "mv /data/file /data/big",
        {"data/file": "w", "data/big": "f"},
        "[ $(cat /data/big) = below ]",
    ),
    "a folder is renamed": (
        "mv /data/dir /data/moved",
        {"data/dir": "w", "data/moved": "d", "data/moved/one": "f", "data/moved/two": "f"},
        "[ $(cat /data/moved/two) = 2 ] && ! [ -e /data/dir ]",
    ),
    "a new folder is renamed": (
        "mkdir /data/new && touch /data/new/x && mv /data/new /data/newer",
        {"data/newer": "d", "data/newer/x": "f"},
        "[ $(ls /data/newer) = x ]",
    ),
    "a folder is renamed over an empty one": (
        "mkdir -p /data/a/in /data/b && mv -T /data/a /data/b",
        {"data/b": "d", "data/b/in": "d"},
        "[ $(ls /data/b) = in ]",
    ),
    "a file gets a second name": (
        "ln /data/file /data/hard",
        {"data/file": "f", "data/hard": "f"},
        "[ /data/file -ef /data/hard ] && [ $(stat -c %h /data/hard) = 2 ]",
    ),
    "one of two names is written to": (
        "echo above >> /data/twin",
        {"data/twin": "f"},
        "[ $(cat /data/twin) = twinabove ] && [ $(cat /data/other-twin) = twin ]",
    ),
    "one of two names goes": (
        "rm /data/twin",
        {"data/twin": "w"},
        "[ $(cat /data/other-twin) = twin ]",
    ),
    "new entries of every kind": (
        "cd /data && mkfifo pipe && mknod null c 1 3 && ln -s nowhere soft && mkdir -m 1777 d && > d/f",
        {"data/pipe": "p", "data/null": "c", "data/soft": "l", "data/d": "d", "data/d/f": "f"},
        "[ -p /data/pipe ] && [ -c /data/null ] && [ -k /data/d ]",
    ),
    "an attribute changes": (
        lambda root: os.setxattr(root / "data/noted", "user.note", b"above"),
        {"data/noted": "f"},
        "[ $(cat /data/noted) = noted ]",
    ),
    "an attribute goes": (
        lambda root: os.removexattr(root / "data/noted", "user.note"),
        {"data/noted": "f"},
        "[ $(cat /data/noted) = noted ]",
    ),
    "a folder gets an attribute": (
        lambda root: os.setxattr(root / "data/dir", "user.note", b"above"),
        {"data/dir": "d"},
        "[ $(cat /data/dir/one) = 1 ]",
    ),
    "everything is read": ("cat /data/big /data/dir/one > /dev/null; ls -lR /data", {}, "true"),
}


@pytest.mark.parametrize(("act", "above", "check"), ACTS.values(), ids=ACTS)
async def test_change_is_in_the_writable_layer_alone_and_the_same_as_a_layer(
    stage: Stage, act: Act, above: dict[str, str], check: str
) -> None:
    """Copied up is what changed and its folders, nothing else, and the layers below stay as they are."""
    before = stage.layers()
    root = await stage.root("c")
    if isinstance(act, str):
        await stage.run(root, act)
    else:
        act(root)
    await stage.run(root, check)
    found = stage.upper("c")
    assert {path: kind for path, kind in found.items() if path != "data"} == above
    assert ("data" in found) == bool(above) and stage.layers() == before
    made = await stage.commit("c")
    tree = described(root)
    again = await stage.root("d", made)
    assert described(again) == tree
    await stage.run(again, check)
    assert described(await stage.umoci(made)) == tree


async def test_changes_of_a_whole_copy_are_the_same_as_a_layer(tmp_path: Path, lab: Lab) -> None:
    """The driver vfs has no writable layer; a hard link of the image is one of the container, too."""
    stage = Stage(tmp_path, lab, VfsDriver())
    await stage.open()
    try:
        root = await stage.root("c")
        await stage.run(root, "echo above >> /data/twin && [ $(cat /data/other-twin) = twinabove ]")
        for name in ("a file gets a second name", "a folder is made again", "new entries of every kind"):
            act, _, check = ACTS[name]
            assert isinstance(act, str)
            await stage.run(root, act)
            await stage.run(root, check)
        made = await stage.commit("c")
        again = await stage.root("d", made)
        assert described(again) == described(root) == described(await stage.umoci(made))
    finally:
        await stage.close()


# -- S4, S5, S6 -------------------------------------------------------------------------------------
async def test_containers_of_one_image_share_it_and_their_changes_are_their_own(stage: Stage) -> None:
    """Five containers need no room for the image, and one byte's change the room of its file."""
    before = disk_usage(stage.base / "images")
    roots = [await stage.root(f"c{number}") for number in range(5)]
    for number, root in enumerate(roots):
        await stage.run(root, f"cat /data/big > /dev/null; echo {number} > /data/mine")
    assert [(root / "data/mine").read_text() for root in roots] == [f"{number}\n" for number in range(5)]
    assert disk_usage(stage.base / "images") - before < 5 * (128 << 10)
    await stage.run(roots[0], "echo x >> /data/big")
    assert disk_usage(stage.base / "images") - before > 1 << 20
    assert {os.stat(root / "data/big").st_size for root in roots[1:]} == {1 << 20}


async def test_read_only_container_has_nothing_in_its_writable_layer(stage: Stage) -> None:
    root = await stage.root("c")
    said = await stage.run(root, "cat /data/file; echo x > /data/file || true", read_only=True)
    assert "below" in said and "Read-only file system" in said
    assert stage.upper("c") == {}


# -- other defaults of the kernel -------------------------------------------------------------------
@contextmanager
def defaults(*names: str) -> Iterator[None]:
    """Overlay mounts made in this block have these features unless they are told otherwise, as the kernels of
    some distributions are built."""
    files = [Path("/sys/module/overlay/parameters", name) for name in names]
    before = [file.read_text() for file in files]
    try:
        for file in files:
            file.write_text("Y")
        yield
    finally:
        for file, value in zip(files, before, strict=True):
            file.write_text(value)


def references(top: Path) -> list[str]:
    return [
        key
        for path in [top, *top.rglob("*")]
        for key in os.listxattr(path, follow_symlinks=False)
        if key in ("trusted.overlay.metacopy", "trusted.overlay.redirect")
    ]


def plain_mount(base: Path) -> Path:
    """An overlay with what the kernel has by default."""
    parts = [base / name for name in ("lower", "upper", "work", "merged")]
    for part in parts:
        part.mkdir(parents=True)
    (parts[0] / "dir").mkdir()
    (parts[0] / "file").write_text("x")
    options = f"lowerdir={parts[0]},upperdir={parts[1]},workdir={parts[2]}"
    call("mount", "-t", "overlay", "overlay", "-o", options, parts[3])
    return parts[3]


@pytest.mark.parametrize("appending", [None, False], ids=["fsopen", "mount"])
async def test_writable_layer_refers_to_nothing_below_whatever_the_kernels_defaults(
    tmp_path: Path, lab: Lab, appending: bool | None
) -> None:
    """Beside it a mount with those defaults, which does."""
    stage = Stage(tmp_path, lab, OverlayDriver(appending=appending))
    await stage.open()
    try:
        with defaults("metacopy", "redirect_dir", "index"):
            root = await stage.root("c")
            other = plain_mount(tmp_path / "other")
        os.chmod(other / "file", 0o600)
        os.rename(other / "dir", other / "moved")
        call("umount", other)
        assert len(references(tmp_path / "other/upper")) == 2
        await stage.run(root, "chmod 600 /data/file && mv /data/dir /data/moved && ln /data/twin /data/third")
        assert references(tmp_path / "images/roots/c/upper") == []
        tree = described(root)
        assert described(await stage.root("d", await stage.commit("c"))) == tree
    finally:
        await stage.close()
