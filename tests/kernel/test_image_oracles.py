"""Our images beside other tools: umoci unpacks the same tree, skopeo and docker-registry are peers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from deploy.busybox import root_tar
from image.drivers.base import StorageDriver
from image.drivers.btrfs import BtrfsDriver
from image.drivers.overlay import OverlayDriver
from image.drivers.vfs import VfsDriver
from image.manifest import OCI_INDEX
from image.reference import parse
from image.registry.client import RegistryClient
from image.registry.source import IndexPush
from image.store import ImageStore
from model.errors import Damaged, NotFound, Unauthenticated
from model.image import ImageRecord
from model.registries import Login
from tests.support import btrfs
from tests.support.images import Built, chunks, digest, folder, image, index, link, member, oci_archive, tar
from tests.support.ports import free_port
from tests.support.waiting import until

pytestmark = pytest.mark.kernel


def with_xattrs(entry: tuple[tarfile.TarInfo, bytes], **values: str) -> tuple[tarfile.TarInfo, bytes]:
    entry[0].pax_headers = {f"SCHILY.xattr.{key.replace('__', '.')}": value for key, value in values.items()}
    return entry


CAPABILITY = "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
LONG = "/".join(["long-folder-name"] * 12)
EVERY_KIND = [
    tar(
        folder("./", mode=0o755, mtime=1),
        folder("dir", mode=0o1777, uid=5, gid=6, mtime=1_000),
        member("dir/file", b"hello", mode=0o4755, uid=1000, gid=1000, mtime=1_500_000_000.25),
        link("dir/hard", "dir/file", hard=True),
        link("dir/soft", "../dir/file"),
        link("absolute", "/dir/file"),
        link("dangling", "/no/where"),
        member("pipe", type=tarfile.FIFOTYPE, mode=0o600, mtime=7),
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, mtime=8),
        member("disk", type=tarfile.BLKTYPE, devmajor=7, devminor=0, mode=0o660, mtime=9),
        with_xattrs(member("attributed", b"x", mtime=3), user__note="hello"),
        with_xattrs(member("capable", b"x", mode=0o755, mtime=3), security__capability=CAPABILITY),
        member("h\u00e9llo w\u00f6rld", b"names"),
        member("new\nline", b"names"),
        member("empty"),
        member("big", bytes(range(256)) * 8192),
        folder("replaced", mtime=1),
        member("replaced/inside", b"x"),
        folder("opaque", mode=0o700, mtime=1),
        member("opaque/old", b"x"),
        folder("deep", mtime=1),
        folder("deep/er", mtime=1),
        member("deep/er/gone", b"x"),
        member("changed", b"first", mtime=1),
        folder("tmp", mode=0o1777, mtime=50),
        member("secret", mode=0, mtime=2),
        *(folder("/".join(LONG.split("/")[:n]), mtime=1) for n in range(1, 13)),
        member(f"{LONG}/file", b"far away"),
    ),
    tar(
        folder("deep", mode=0o711, mtime=60),
        folder("deep/er", mtime=61),
        member("deep/er/.wh.gone"),
        member("replaced", b"a file now", mtime=62),
        folder("opaque", mode=0o750, mtime=63),
        member("opaque/.wh..wh..opq"),
        member("opaque/new", b"y", mtime=64),
        member("changed", b"second", mode=0o600, mtime=65),
        member(".wh.dangling"),
        folder("tmp", mode=0o1777, mtime=70),
        member("tmp/left", b"x", mtime=66),
    ),
]
BUSYBOX = [root_tar({"etc/hostname": b"box\n"})]


SECRET = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"
"""The word secret as bcrypt has it."""


class Lab:
    """A store, and skopeo and umoci below one folder."""

    def __init__(self, folder: Path, driver: StorageDriver) -> None:
        self.folder = folder
        self.store = ImageStore(folder / "images", driver_choice=(driver, "test"), source=RegistryClient())

    async def root(self, record: ImageRecord) -> Path:
        await self.store.prepare_root("c", record.id)
        return Path((await self.store.mount_root("c")).path)

    async def close(self) -> None:
        for root in self.store.roots():
            await self.store.remove_root(root.container)
        await self.store.close()


@pytest.fixture(params=[OverlayDriver, BtrfsDriver, VfsDriver], ids=["overlay", "btrfs", "vfs"])
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    driver: StorageDriver = request.param()
    with btrfs.mounted(tmp_path) if driver.name == "btrfs" else nullcontext(tmp_path) as base:
        lab = Lab(base, driver)
        await lab.store.open()
        yield lab
        await lab.close()


async def run(*argv: str | Path) -> bytes:
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    out: bytes = done.stdout
    return out


async def layout(folder: Path, built: Built) -> Path:
    """The image as an OCI layout with the tag `it`, as umoci and skopeo take it."""
    path = folder / "layout"
    (path / "blobs/sha256").mkdir(parents=True)
    for name, data in {**built.blobs, built.digest: built.manifest}.items():
        (path / "blobs/sha256" / name[7:]).write_bytes(data)
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": built.digest,
        "size": len(built.manifest),
        "annotations": {"org.opencontainers.image.ref.name": "it"},
    }
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return path


def described(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that a container could see of a tree."""
    found = {}
    twins: dict[int, str] = {}
    paths = [root, *sorted(Path(base, n) for base, ds, fs in os.walk(root) for n in (*ds, *fs))]
    for path in paths:
        status = os.lstat(path)
        name = path.relative_to(root).as_posix()
        regular, symbolic = stat.S_ISREG(status.st_mode), stat.S_ISLNK(status.st_mode)
        keys = [k for k in os.listxattr(path, follow_symlinks=False) if not k.startswith("trusted.")]
        found[name] = (
            stat.filemode(status.st_mode),
            (status.st_uid, status.st_gid),
            status.st_rdev,
            status.st_mtime_ns,
            digest(path.read_bytes()) if regular else os.readlink(path) if symbolic else "",
            {key: os.getxattr(path, key, follow_symlinks=False) for key in keys},
            twins.setdefault(status.st_ino, name) if regular else "",
        )
    return found


@pytest.mark.parametrize("layers", [BUSYBOX, EVERY_KIND], ids=["busybox", "every kind"])
async def test_tree_is_the_one_that_umoci_unpacks(lab: Lab, layers: list[bytes]) -> None:
    built = image(layers)
    path = await layout(lab.folder, built)
    await run("umoci", "raw", "unpack", "--image", f"{path}:it", lab.folder / "theirs")
    [record] = await lab.store.load(chunks(oci_archive(built)))
    ours = described(await lab.root(record))
    theirs = described(lab.folder / "theirs")
    assert ours.keys() == theirs.keys()
    assert [(name, ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
async def test_archives_that_skopeo_writes_are_loaded(lab: Lab, form: str) -> None:
    path = await layout(lab.folder, image(EVERY_KIND))
    target = lab.folder / "archive.tar"
    tag = "example.com/it:1" if form == "docker-archive" else "it"
    await run("skopeo", "copy", "--insecure-policy", f"oci:{path}:it", f"{form}:{target}:{tag}")
    [record] = await lab.store.load(chunks(target.read_bytes()))
    assert record.names == (("example.com/it:1",) if form == "docker-archive" else ())
    assert (await lab.root(record) / "opaque/new").read_bytes() == b"y"


class Registry:
    """Debian's docker-registry on a port of loopback."""

    def __init__(self, host: str, storage: Path) -> None:
        self.host = host
        self.storage = storage


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def serving(folder: Path, auth: str = "") -> Iterator[tuple[int, Path]]:
    port, storage = free_port(), folder / "registry"
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: {storage}}}}}\n{auth}"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield port, storage
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    with serving(tmp_path) as (port, storage):
        await until(lambda: answers(port), deadline=30)
        yield Registry(f"127.0.0.1:{port}", storage)


async def push(lab: Lab, registry: Registry, built: Built, *options: str) -> str:
    path = await layout(lab.folder, built)
    name = f"{registry.host}/some/app:1"
    await run(
        "skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", *options,
        f"oci:{path}:it", f"docker://{name}",
    )  # fmt: skip
    return name


@pytest.mark.parametrize("form", ["oci", "v2s2"])
async def test_image_is_pulled_from_debians_registry(lab: Lab, registry: Registry, form: str) -> None:
    name = await push(lab, registry, image(EVERY_KIND), "--format", form)
    record = await lab.store.ensure(name, policy="missing")
    inspected = await run("skopeo", "inspect", "--tls-verify=false", f"docker://{name}")
    assert record.digests == (f"{registry.host}/some/app@{json.loads(inspected)['Digest']}",)
    assert (await lab.root(record) / "tmp/left").read_bytes() == b"x"
    with pytest.raises(NotFound, match="manifest unknown"):
        await lab.store.pull(f"{registry.host}/some/app:2")
    with pytest.raises(NotFound):
        await lab.store.pull(f"{registry.host}/other:1")


async def test_blob_damaged_at_the_registry_is_refused(lab: Lab, registry: Registry) -> None:
    built = image(BUSYBOX)
    name = await push(lab, registry, built)
    blob = list(built.blobs)[1]
    data = registry.storage / f"docker/registry/v2/blobs/sha256/{blob[7:9]}/{blob[7:]}/data"
    raw = bytearray(data.read_bytes())
    raw[len(raw) // 2] ^= 1
    data.write_bytes(raw)
    with pytest.raises(Damaged, match="does not match its digest"):
        await lab.store.pull(name)
    assert lab.store.list() == []


async def test_registry_with_a_password_wants_the_right_one(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(f"ada:{SECRET}\n")
    auth = f"auth: {{htpasswd: {{realm: flota, path: {tmp_path}/htpasswd}}}}\n"
    with serving(tmp_path, auth) as (port, storage):
        await until(lambda: answers(port), deadline=30)
        registry = Registry(f"127.0.0.1:{port}", storage)
        with pytest.raises(Unauthenticated, match="denies access"):
            await lab.store.pull(f"{registry.host}/some/app:1")
        name = await push(lab, registry, image(BUSYBOX), "--dest-creds=ada:secret")
        login = Login(user="ada", password="secret")
        assert (await lab.store.pull(name, login=login)).names == (name,)


async def test_whole_index_goes_to_debians_registry_and_skopeo_sees_it(lab: Lab, registry: Registry) -> None:
    built = {arch: image(BUSYBOX, arch=arch) for arch in ("amd64", "arm64")}
    for arch, one in built.items():
        folder = lab.folder / arch
        folder.mkdir()
        source = await layout(folder, one)
        target = f"docker://{registry.host}/some/app:{arch}"
        await run(
            "skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", f"oci:{source}:it", target
        )  # fmt: skip
    whole = index(*((one, arch) for arch, one in built.items()))
    reference = parse(f"{registry.host}/some/app:all")
    wish = IndexPush(reference=reference, data=whole, media_type=OCI_INDEX)
    assert await lab.store.source.push_index(wish) == digest(whole)
    assert len(await lab.store.pull_all(reference.name)) == 2
    moved = f"{registry.host}/other/app:2"
    await lab.store.tag(reference.name, moved)
    await lab.store.push(moved)
    raw = await run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{moved}")
    assert raw == whole
    for arch in built:
        words = ("--override-arch", arch, "inspect", "--tls-verify=false", f"docker://{moved}")
        assert json.loads(await run("skopeo", *words))["Architecture"] == arch
