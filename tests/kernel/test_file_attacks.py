"""Copies in and out of containers that want out: links to the host, links that change, names that climb.

Nothing outside a container's root is ever read, made or changed by them.
"""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.files import work
from agent.files.job import Bound, Job, Place
from model.errors import Damaged, FlotaError, InvalidInput, NotFound, WrongState
from model.spec import ContainerSpec
from tests.support.breakouts import CONTAINERD, CPYTHON, DOCKER, archive
from tests.support.containers import Lab
from tests.support.images import folder, link, member, tar
from tests.support.layerplaces import LayerPlace
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
SECRET = b"of the host alone"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir(mode=0o711)
    (place / "secret").write_bytes(SECRET)
    return place


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Of a container that does not run."""
    place = tmp_path / "stopped"
    (place / "etc").mkdir(parents=True)
    return place


def of(root: Path, **more: object) -> Place:
    return Place(container="c" * 64, name="box", folder=str(root), **more)  # type: ignore[arg-type]


async def put(place: Place, path: str, data: bytes, *, replace: bool = False) -> None:
    async with work.started(Job(verb="put", place=place, path=path, replace=replace)) as piped:
        await piped.write(data)
        piped.close_stdin()
        while await piped.read():
            pass
        await work.ended(piped)


async def get(place: Place, path: str) -> bytes:
    return b"".join([data async for data in work.output(Job(verb="get", place=place, path=path))])


def files(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive if info.isreg()}  # type: ignore[union-attr]


def untouched(outside: Path) -> None:
    assert os.listdir(outside) == ["secret"] and (outside / "secret").read_bytes() == SECRET
    assert stat.S_IMODE(os.stat(outside).st_mode) == 0o711


async def test_link_to_the_host_leads_into_the_container(root: Path, outside: Path) -> None:
    os.symlink(outside, root / "absolute")
    os.symlink("../" * 20 + str(outside), root / "relative")
    for name in ("absolute", "relative"):
        with pytest.raises(NotFound):
            await put(of(root), f"/{name}", tar(member("new", b"x")))
        with pytest.raises(NotFound):
            await get(of(root), f"/{name}/secret")
        told = await work.stat(Job(verb="stat", place=of(root), path=f"/{name}"))
        assert told.link_target == str(outside)
    inside = root / str(outside).lstrip("/")
    inside.mkdir(parents=True)
    await put(of(root), "/relative", tar(member("new", b"x")))
    assert (inside / "new").read_bytes() == b"x"
    untouched(outside)


async def test_names_that_climb_out_are_refused(root: Path, outside: Path) -> None:
    for name in ("../escaped", "a/../../escaped", "x/../../../etc/escaped"):
        with pytest.raises(Damaged, match="leaves"):
            await put(of(root), "/etc", tar(member(name, b"x")))
    await put(of(root), "/etc", tar(member("/absolute", b"x")))
    assert (root / "etc/absolute").exists() and os.listdir(root) == ["etc"]
    with pytest.raises(Damaged, match="leaves"):
        await put(of(root), "/etc", tar(link("hard", "../../victim", hard=True)))
    untouched(outside)


async def test_links_of_the_tar_itself_lead_nowhere_outside(root: Path, outside: Path) -> None:
    with pytest.raises(InvalidInput):
        await put(of(root), "/", tar(link("out", str(outside)), member("out/new", b"x")))
    await put(of(root), "/", tar(link("up", "../" * 30), member(f"up{outside}/new", b"x")))
    assert (root / str(outside).lstrip("/") / "new").read_bytes() == b"x"
    with pytest.raises(FlotaError):
        await put(of(root), "/", tar(link("hard", str(outside / "secret"), hard=True)))
    untouched(outside)


ATTACKS = {**DOCKER, **CPYTHON, **{name: entries for name, (entries, _) in CONTAINERD.items()}}


@pytest.mark.parametrize("entries", ATTACKS.values(), ids=ATTACKS)
async def test_attack_on_other_extractors_is_refused_or_stays_inside(
    tmp_path: Path, entries: tuple[str, ...]
) -> None:
    place = LayerPlace(tmp_path)
    before = place.census()
    try:
        await put(of(place.target), "/", archive(*entries), replace=True)
    except FlotaError as error:
        assert error.code in ("damaged", "invalid_input", "unsupported"), error
        assert "\n" not in str(error)
    assert place.census() == before
    outside = {os.lstat(path).st_ino for path in (place.victim, *place.victim.iterdir())}
    for path in place.target.rglob("*"):
        assert os.lstat(path).st_ino not in outside
        if path.is_file() and not path.is_symlink():
            assert path.read_bytes() not in (b"untouched", b"secret")


async def test_directory_is_no_file_and_a_file_no_directory(root: Path) -> None:
    (root / "file").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="cannot overwrite directory /etc with non-directory"):
        await put(of(root), "/", tar(member("etc", b"x")))
    with pytest.raises(InvalidInput, match="cannot overwrite non-directory"):
        await put(of(root), "/", tar(folder("file")))
    with pytest.raises(InvalidInput, match="extraction point is not a directory"):
        await put(of(root), "/file", tar(member("x")))


def deepen(top: Path, levels: int) -> None:
    """Deeper than any path may be long, or a program recurse."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("below", dir_fd=fd)
        inner = os.open("below", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


async def test_directory_and_file_take_each_others_place_where_that_is_wished(
    root: Path, outside: Path
) -> None:
    (root / "file").write_bytes(b"x")
    (root / "d/deep").mkdir(parents=True)
    os.symlink(outside, root / "d/deep/out")
    os.symlink(outside, root / "link")
    deepen(root / "d", 1500)
    data = tar(member("d", b"now a file"), folder("file"), member("file/in", b"y"), folder("link"))
    await put(of(root), "/", data, replace=True)
    assert (root / "d").read_bytes() == b"now a file" and (root / "file/in").read_bytes() == b"y"
    assert (root / "link").is_dir() and not (root / "link").is_symlink()
    untouched(outside)


async def test_mounts_of_a_stopped_container_are_seen_by_nobody_else(root: Path, outside: Path) -> None:
    (root / "v").mkdir()
    os.symlink("/../../v", root / "round")
    place = of(
        root, mounts=(Bound(source=str(outside), target="/round"), Bound(source="/", target="/missing"))
    )
    assert files(await get(place, "/v")) == {"v/secret": SECRET}
    assert os.listdir(root / "v") == [] and sorted(os.listdir(root)) == ["etc", "missing", "round", "v"]
    read_only = of(root, mounts=(Bound(source=str(outside), target="/v", read_only=True),))
    with pytest.raises(InvalidInput, match="mounted volume is marked read-only"):
        await put(read_only, "/v", tar(member("new")))
    untouched(outside)


async def test_fifo_blocks_no_copy_and_a_socket_is_left_out(root: Path) -> None:
    os.mkfifo(root / "etc/pipe")
    os.mknod(root / "etc/socket", stat.S_IFSOCK | 0o600)
    with tarfile.open(fileobj=io.BytesIO(await get(of(root), "/etc"))) as archive:
        assert sorted(archive.getnames()) == ["etc", "etc/pipe"]


async def test_large_sparse_file_is_a_small_copy_both_ways(root: Path) -> None:
    with open(root / "etc/large", "wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"here")
    data = await get(of(root), "/etc/large")
    assert len(data) < 1 << 16
    os.mkdir(root / "to")
    await put(of(root), "/to", data)
    status = os.stat(root / "to/large")
    assert status.st_size == 1 << 40 and status.st_blocks * 512 < 1 << 20


class Hostile:
    """A running container and its place."""

    def __init__(self, place: Place, root: Path) -> None:
        self.place = place
        self.root = root


SWAP = """
mkdir -p /swap/real /swap/other && echo mine >/swap/real/secret
ln -s %s /swap/evil
while :; do
  mv /swap/real /swap/at && mv /swap/at /swap/real
  ln -sfn /swap/evil /swap/link; ln -sfn /swap/real /swap/link
  mv /swap/other /swap/tmp; ln -s %s /swap/other; rm /swap/other; mv /swap/tmp /swap/other
done
"""


@pytest.fixture
async def hostile(lab: Lab, outside: Path) -> AsyncIterator[Hostile]:
    spec = ContainerSpec(image="x", args=("sh", "-c", SWAP % (outside, outside)))
    bundle, created = await lab.create(spec)
    await lab.runtime.start(bundle.id)
    yield Hostile(Place(container=bundle.id, name="box", pid=created.pid), lab.rootfs)


async def test_container_that_swaps_its_links_in_a_loop_gets_nothing(hostile: Hostile, outside: Path) -> None:
    ends = time.monotonic() + 6
    done = 0
    while time.monotonic() < ends:
        for path in ("/swap/link", "/swap/other", "/swap/real"):
            try:
                await put(hostile.place, path, tar(member("planted", b"x"), folder("d"), member("d/e", b"x")))
                done += 1
            except (NotFound, InvalidInput):
                pass
            try:
                assert SECRET not in await get(hostile.place, f"{path}/secret")
                done += 1
            except NotFound:
                pass
    assert done > 5
    untouched(outside)


async def test_links_of_proc_to_other_places_are_not_followed(hostile: Hostile) -> None:
    for path in ("/proc/1/root/etc", "/proc/self/root/etc", "/proc/1/cwd/x", "/proc/1/fd/0/x"):
        with pytest.raises((InvalidInput, NotFound)):
            await get(hostile.place, path)
        with pytest.raises((InvalidInput, NotFound)):
            await put(hostile.place, path, tar(member("x")))
    with pytest.raises(InvalidInput, match="made up by the kernel"):
        await get(hostile.place, "/proc/1/environ")


async def test_whole_root_of_a_running_container_is_copied_without_the_kernels_files(
    hostile: Hostile,
) -> None:
    names = files(await get(hostile.place, "/"))
    assert "bin/busybox" in names and not [n for n in names if n.startswith(("proc/", "sys/", "dev/"))]


WITH_A_MOUNT = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
root = os.fsencode(sys.argv[1])
assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
assert libc.mount(None, b"/", None, 1 << 14 | 1 << 18, None) == 0  # MS_REC | MS_PRIVATE
assert libc.mount(root, root, None, 1 << 12, None) == 0  # MS_BIND
assert libc.mount(os.fsencode(sys.argv[2]), root + b"/v", None, 1 << 12, None) == 0
os.chroot(root)
print("ready", flush=True)
time.sleep(1000)
"""


def mounted(root: Path, volume: Path) -> subprocess.Popen[bytes]:
    """A process with a root that has a volume of its own eyes alone at /v."""
    argv = [sys.executable, "-c", WITH_A_MOUNT, str(root), str(volume)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


async def test_copy_into_a_container_that_ends_still_goes_to_its_volumes(root: Path, tmp_path: Path) -> None:
    (root / "v").mkdir()
    volume = tmp_path / "volume"
    volume.mkdir()
    data = tar(member("v/new", b"x"))
    with mounted(root, volume) as process:
        place = Place(container="", name="box", pid=process.pid)
        async with work.started(Job(verb="put", place=place, path="/")) as piped:
            await piped.write(data[:512])
            entered = f"/proc/{piped._process.pid}/root"
            await until(lambda: os.readlink(entered) != "/", deadline=20)
            process.kill()
            process.wait()
            await piped.write(data[512:])
            piped.close_stdin()
            while await piped.read():
                pass
            await work.ended(piped)
    assert os.listdir(volume) == ["new"] and os.listdir(root / "v") == []


async def test_another_process_is_never_taken_for_the_container(hostile: Hostile) -> None:
    for pid in (os.getpid(), 1, 4_000_000):
        place = Place(container=hostile.place.container, name="box", pid=pid)
        with pytest.raises(WrongState, match="ended"):
            await get(place, "/etc")
