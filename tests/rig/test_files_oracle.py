"""Files of containers beside Docker Engine 20.10: the same acts on the same image, the same outcomes."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.busybox import root_tar
from deploy.fleet import FLOTA, Fleet
from tests.rig.conftest import IMAGE
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.rig, pytest.mark.slow]
SOCKET = "/run/flota/engine.sock"
DOCKER, OURS = ("docker", "-H", f"unix://{SOCKET}"), (FLOTA,)
HERE = {"docker": (), "flota": ("--node", "n1")}
"""Where the other's containers are."""
BOTH = {"docker": DOCKER, "flota": OURS}
CHANGES = """
mkdir -p /new/deep && echo 1 >/new/deep/file && echo 2 >/etc/passwd && rm /etc/group
rm -r /home && mkdir /home && echo 3 >/home/own && ln /new/deep/file /new/hard && ln -s nowhere /new/soft
mv /bin/vi /bin/vim && mv /bin/vim /bin/vi && mv /bin/wget /bin/got && chmod 700 /root
touch /tmp/x && rm /tmp/x && mkfifo /new/pipe && touch -d '2001-02-03 04:05:06' /new/deep/file
echo done && exec sleep 1000
"""


@pytest.fixture(scope="module")
def engines(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Docker Engine on n1 beside the fleet, with the same image."""
    words = ["dockerd", "--data-root", "/var/lib/flota/docker", "--exec-root", "/run/docker"]
    words += ["-p", "/run/docker.pid", "-H", f"unix://{SOCKET}", "--iptables=false", "--bridge=none"]
    daemon = fleet.rig.spawn("n1", words, log=str(tmp_path_factory.mktemp("log") / "dockerd"))
    info = [*DOCKER, "info"]
    try:
        wait_until(
            lambda: fleet.rig.exec("n1", info, check=False).returncode == 0, deadline=30, what="dockerd"
        )
        fleet.rig.exec("n1", [*DOCKER, "import", "-", IMAGE], stdin=root_tar())
        yield fleet
    finally:
        fleet.rig.exec("n1", ["sh", "-c", "kill $(cat /run/docker.pid)"], check=False)
        daemon.wait(20)


def on(fleet: Fleet, engine: str, *words: str, stdin: bytes | None = None) -> bytes:
    return fleet.rig.exec("n1", [*BOTH[engine], *words], stdin=stdin).stdout


@pytest.fixture
def boxes(engines: Fleet) -> Iterator[Fleet]:
    """The same container under each."""
    for engine in BOTH:
        words = ("-d", "--name", "twin", *HERE[engine], "--network", "none", IMAGE, "sh", "-c", CHANGES)
        on(engines, engine, "run", *words)
        wait_until(lambda engine=engine: b"done" in on(engines, engine, "logs", "twin"), deadline=20)  # type: ignore[misc]
    yield engines
    for engine in BOTH:
        on(engines, engine, "rm", "-f", "twin")


def tree(data: bytes) -> dict[str, tuple[object, ...]]:
    """What a tar says of each member, but for what each engine makes for itself."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            name = info.name.removeprefix("./").strip("/")
            if name.split("/")[0] in ("dev", "proc", "sys", ".dockerenv", "", ".") or name in (
                "etc", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab",
            ):  # fmt: skip
                continue
            content = archive.extractfile(info).read() if info.isreg() else b""  # type: ignore[union-attr]
            link = "" if info.islnk() else info.linkname
            kind = tarfile.REGTYPE if info.islnk() else info.type
            found[name] = (
                kind,
                info.mode & 0o7777,
                info.uid,
                info.gid,
                link,
                b"" if info.islnk() else content,
            )
    return found


def test_diff_is_dockers(boxes: Fleet) -> None:
    said = {engine: on(boxes, engine, "diff", "twin").decode().splitlines() for engine in BOTH}
    assert sorted(said["flota"]) == sorted(said["docker"])


def test_export_and_committed_tree_are_dockers(boxes: Fleet) -> None:
    exported = {engine: tree(on(boxes, engine, "export", "twin")) for engine in BOTH}
    names = exported["docker"].keys() | exported["flota"].keys()
    assert [n for n in sorted(names) if exported["docker"].get(n) != exported["flota"].get(n)] == []
    committed = {}
    for engine in BOTH:
        on(boxes, engine, "commit", "twin", "twin:1")
        on(boxes, engine, "run", "--name", "again", *HERE[engine], "--network", "none", "twin:1", "true")
        committed[engine] = tree(on(boxes, engine, "export", "again"))
        on(boxes, engine, "rm", "again")
        on(boxes, engine, "rmi", "twin:1")
    names = committed["docker"].keys() | committed["flota"].keys()
    assert [n for n in sorted(names) if committed["docker"].get(n) != committed["flota"].get(n)] == []
    assert committed["flota"].keys() == exported["flota"].keys()


SOURCES = ("file", "file/", "tree", "tree/", "tree/.", "link", "linked", "linked/", "none", ".", "tree/..")
TARGETS = ("/t", "/t/.", "/t/file", "/t/file/", "/t/new", "/t/new/", "/t/no/such", "/t/link", "t/dir/")
PLAIN, FOLLOWING = (), ("-L",)
COPIES_IN = [(source, PLAIN) for source in SOURCES] + [(s, FOLLOWING) for s in ("link", "linked", "linked/")]
INNER = (
    "/t",
    "/t/",
    "/t/.",
    "/t/file",
    "/t/file/",
    "/t/dir",
    "/t/link",
    "/t/link/",
    "/t/soft",
    "t/dir",
    "/t/none",
)
OUTER = ("to", "to/.", "to/file", "to/file/", "to/new", "to/new/", "to/no/such", "to/link")
COPIES_OUT = [(source, PLAIN) for source in INNER] + [
    (s, FOLLOWING) for s in ("/t/link", "/t/link/", "/t/soft")
]
FRESH = "rm -rf /t; mkdir -p /t/dir; echo old >/t/file; ln -s dir /t/link"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    place = tmp_path / "here"
    (place / "tree/sub").mkdir(parents=True)
    (place / "file").write_bytes(b"local\n")
    (place / "tree/a").write_bytes(b"a\n")
    (place / "tree/sub/b").write_bytes(b"b\n")
    os.symlink("file", place / "link")
    os.symlink("tree", place / "linked")
    return place


def outcome(fleet: Fleet, engine: str, *words: str) -> bool:
    return fleet.rig.exec("n1", [*BOTH[engine], "cp", *words], check=False).returncode == 0


@pytest.fixture(scope="module")
def pair(engines: Fleet) -> Iterator[Fleet]:
    """An idle container under each."""
    for engine in BOTH:
        on(engines, engine, "run", "-d", "--name", "pair", "--network", "none", IMAGE, "sleep", "1000")
    yield engines
    for engine in BOTH:
        on(engines, engine, "rm", "-f", "pair")


@pytest.mark.parametrize(("source", "options"), COPIES_IN)
def test_every_copy_into_a_container_ends_as_with_docker(
    pair: Fleet, here: Path, source: str, options: tuple[str, ...]
) -> None:
    ended: dict[str, dict[str, object]] = {engine: {} for engine in BOTH}
    for target in TARGETS:
        for engine, ends in ended.items():
            on(pair, engine, "exec", "pair", "sh", "-c", FRESH)
            good = outcome(pair, engine, *options, f"{here}/{source}", f"pair:{target}")
            seen = tree(on(pair, engine, "cp", "pair:/t", "-"))
            ends[target] = (good, {name: (v[0], v[4], v[5]) for name, v in seen.items()} if good else {})
    assert ended["flota"] == ended["docker"]


@pytest.mark.parametrize(("source", "options"), COPIES_OUT)
def test_every_copy_out_of_a_container_ends_as_with_docker(
    pair: Fleet, tmp_path: Path, source: str, options: tuple[str, ...]
) -> None:
    ended: dict[str, dict[str, object]] = {engine: {} for engine in BOTH}
    for engine, ends in ended.items():
        on(pair, engine, "exec", "pair", "sh", "-c", f"{FRESH}; echo x >/t/dir/x; ln -s file /t/soft")
        for number, target in enumerate(OUTER):
            place = tmp_path / f"{engine}{number}"
            (place / "to/dir").mkdir(parents=True)
            (place / "to/file").write_bytes(b"old")
            os.symlink("dir", place / "to/link")
            good = outcome(pair, engine, *options, f"pair:{source}", f"{place}/{target}")
            ends[target] = (good, listed(place / "to") if good else {})
    assert ended["flota"] == ended["docker"]


def listed(top: Path) -> dict[str, object]:
    return {
        str(p.relative_to(top)): os.readlink(p) if p.is_symlink() else p.is_dir() or p.read_bytes()
        for p in sorted(top.rglob("*"))
    }
