"""`cp`, `diff`, `export` and `commit` from any host of a fleet: docker's rules of paths, real containers."""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.fleet import FLOTA, Fleet
from tests.rig.conftest import IMAGE
from tests.rig.support import background
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
NAME = "box"


@pytest.fixture(params=["running", "stopped"])
def box(clean: Fleet, request: pytest.FixtureRequest) -> Iterator[str]:
    """A container on another host than the command line's."""
    words = ("sh", "-c", "mkdir -p /d/sub && echo one >/d/one && echo two >/d/sub/two && sleep 1000")
    clean.flota("n1", "run", "-d", "--name", NAME, "--node", "n2", "--stop-signal", "KILL", IMAGE, *words)
    clean.flota("n1", "exec", NAME, "sh", "-c", "while ! [ -e /d/sub/two ]; do usleep 1000; done")
    if request.param == "stopped":
        clean.flota("n1", "stop", NAME)
    yield NAME


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Local files, seen by every host as the rig's hosts share the disk."""
    place = tmp_path / "here"
    (place / "tree/sub").mkdir(parents=True)
    (place / "file").write_bytes(b"local\n")
    (place / "tree/a").write_bytes(b"a\n")
    (place / "tree/sub/b").write_bytes(b"b\n")
    os.symlink("tree/a", place / "link")
    os.chmod(place / "file", 0o750)
    return place


def content(fleet: Fleet, path: str) -> dict[str, bytes]:
    """Files below a path of the container, by the tar that it gives."""
    done = fleet.attempt("n1", "cp", f"{NAME}:{path}", "-")
    assert done.returncode == 0, done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        found = {info.name: archive.extractfile(info) for info in archive if info.isreg()}
        return {name: file.read() for name, file in found.items() if file is not None}


def test_copies_into_a_container_follow_dockers_rules(clean: Fleet, box: str, here: Path) -> None:
    def put(source: str, target: str) -> None:
        clean.flota("n1", "cp", f"{here}/{source}", f"{box}:{target}")

    put("file", "/d")
    assert content(clean, "/d/file") == {"file": b"local\n"}
    put("file", "/d/named")
    assert content(clean, "/d/named") == {"named": b"local\n"}
    put("tree", "/new")
    assert content(clean, "/new") == {"new/a": b"a\n", "new/sub/b": b"b\n"}
    put("tree", "/d")
    assert set(content(clean, "/d")) >= {"d/tree/a", "d/tree/sub/b"}
    put("tree/.", "/d/sub")
    assert content(clean, "/d/sub") == {"sub/a": b"a\n", "sub/sub/b": b"b\n", "sub/two": b"two\n"}
    put("file", "d/one")
    assert content(clean, "/d/one") == {"one": b"local\n"}
    for source, target, words in (
        ("tree", "/d/one", "cannot copy directory"),
        ("file", "/no/such/place", "Could not find the file /no/such in container box"),
        ("file", "/missing/", "no such directory"),
        ("none", "/d", "no such file or directory"),
    ):
        done = clean.attempt("n1", "cp", f"{here}/{source}", f"{box}:{target}")
        assert done.returncode == 1 and words in done.stderr.decode(), done.stderr


def test_copies_out_of_a_container_follow_dockers_rules(clean: Fleet, box: str, here: Path) -> None:
    def get(source: str, target: str) -> None:
        clean.flota("n1", "cp", f"{box}:{source}", f"{here}/{target}")

    get("/d/one", "")
    assert (here / "one").read_bytes() == b"one\n"
    get("/d/one", "other")
    assert (here / "other").read_bytes() == b"one\n"
    get("d", "copy")
    assert (here / "copy/sub/two").read_bytes() == b"two\n"
    get("/d", "copy")
    assert (here / "copy/d/sub/two").read_bytes() == b"two\n"
    get("/d/.", "tree")
    assert (here / "tree/sub/two").read_bytes() == b"two\n" and (here / "tree/a").exists()
    for source, target, words in (
        ("/d", "file", "cannot copy directory"),
        ("/nope", "x", "Could not find the file /nope in container box"),
        ("/d/one", "no/such", "invalid output path: directory"),
        ("/d/one", "missing/", "no such directory"),
    ):
        done = clean.attempt("n1", "cp", f"{box}:{source}", f"{here}/{target}")
        assert done.returncode == 1 and words in done.stderr.decode(), done.stderr


def test_copied_tree_comes_back_as_it_was(clean: Fleet, box: str, here: Path) -> None:
    """Modes, times, links, hard links, names that are odd; owners with `-a`."""
    tree = here / "tree"
    (tree / os.fsdecode(b"odd\xff\nname")).write_bytes(b"x")
    os.link(tree / "a", tree / "hard")
    os.symlink("/etc/passwd", tree / "absolute")
    os.chmod(tree / "sub", 0o2711)
    os.chown(tree / "a", 1234, 4321)
    os.utime(tree / "sub/b", ns=(1, 1_234_567_890_123_456_789))
    os.mkfifo(tree / "pipe")
    clean.flota("n1", "cp", "-a", str(tree), f"{box}:/back")
    clean.flota("n1", "cp", "-a", f"{box}:/back", f"{here}/back")

    def seen(top: Path) -> dict[str, object]:
        return {
            str(p.relative_to(top)): (s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_mtime_ns)
            for p in sorted(top.rglob("*"))
            for s in [os.lstat(p)]
        }

    assert seen(here / "back") == seen(tree)
    clean.flota("n1", "cp", str(tree), f"{box}:/roots")
    clean.flota("n1", "cp", "-a", f"{box}:/roots/a", f"{here}/a")
    assert os.stat(here / "a").st_uid == 0


def test_streams_are_copied_as_tars(clean: Fleet, box: str, here: Path) -> None:
    packed = subprocess.run(["tar", "-czC", here, "tree"], capture_output=True, check=True).stdout
    clean.flota("n1", "cp", "-", f"{box}:/d", stdin=packed)
    assert content(clean, "/d/tree/a") == {"a": b"a\n"}
    done = clean.rig.exec("n1", [FLOTA, "cp", "-", f"{box}:/d/one"], check=False, stdin=packed)
    assert done.returncode == 1 and b"must be a directory" in done.stderr
    done = clean.rig.exec("n1", [FLOTA, "cp", "-", f"{box}:/d"], check=False, stdin=b"no tar" * 500)
    assert done.returncode == 1 and b"tar" in done.stderr


def test_links_are_copied_or_followed(clean: Fleet, box: str, here: Path) -> None:
    clean.flota("n1", "cp", f"{here}/link", f"{box}:/d/as-link")
    clean.flota("n1", "cp", "-L", f"{here}/link", f"{box}:/d/as-file")
    assert content(clean, "/d/as-file") == {"as-file": b"a\n"}
    clean.flota("n1", "cp", f"{box}:/d/as-link", f"{here}/came")
    assert os.readlink(here / "came") == "tree/a"
    os.symlink("/d/sub", here / "into")
    clean.flota("n1", "cp", f"{here}/into", f"{box}:/into")
    clean.flota("n1", "cp", f"{here}/file", f"{box}:/into")
    assert content(clean, "/d/sub/file") == {"file": b"local\n"}
    clean.flota("n1", "cp", "-L", f"{box}:/into", f"{here}/followed")
    assert (here / "followed/two").read_bytes() == b"two\n"


def test_diff_tells_what_was_added_changed_and_deleted(clean: Fleet, box: str, here: Path) -> None:
    clean.flota("n1", "cp", f"{here}/file", f"{box}:/etc/passwd")
    found = clean.flota("n1", "diff", box).splitlines()
    assert found == ["A /d", "A /d/one", "A /d/sub", "A /d/sub/two", "C /etc", "C /etc/passwd"]


def test_exported_tree_is_the_containers(clean: Fleet, box: str, here: Path) -> None:
    clean.flota("n1", "export", "-o", f"{here}/out.tar", box)
    names = subprocess.run(["tar", "-tf", here / "out.tar"], capture_output=True, check=True).stdout.decode()
    assert {"bin/busybox", "d/sub/two", "etc/passwd"} <= set(names.splitlines())
    assert not [name for name in names.splitlines() if name.startswith(("proc/", "sys/")) and len(name) > 5]


def test_committed_container_runs_as_an_image(clean: Fleet, box: str) -> None:
    words = ("-m", "made by hand", "-a", "Ada", "-c", "CMD cat /d/one", "-c", "ENV A=b")
    ident = clean.flota("n1", "commit", *words, box, "made:1").strip()
    assert ident.startswith("sha256:")
    try:
        assert clean.flota("n1", "run", "--rm", "--node", "n2", "made:1") == "one\n"
        [found] = [i for i in clean.json("images") if i["image"]["id"] == ident]
        assert found["host"] == "n2" and "A=b" in found["image"]["config"]["env"]
        assert found["image"]["history"][-1]["comment"] == "made by hand"
    finally:
        clean.flota("n1", "rmi", "made:1")


TICK = "mkdir /m; while [ $((n+=1)) -lt 6000 ]; do echo $n >/m/$n; done; echo go; "
TICK += "while :; do echo $((n+=1)) >/tick; usleep 5000; done"


@pytest.fixture
def ticking(clean: Fleet) -> Iterator[str]:
    """A container whose commit takes a while, and whose processes write the time all the time."""
    clean.flota(
        "n1", "run", "-d", "--name", NAME, "--node", "n1", "--stop-signal", "KILL", IMAGE, "sh", "-c", TICK
    )
    wait_until(lambda: "go" in clean.flota("n1", "logs", NAME), deadline=60)
    yield NAME


def stands_still(fleet: Fleet) -> bool:
    """By what its agent notes of it."""
    return any(fleet.rig.run_folder("n1").glob("agent/c/*/frozen"))


def ticks(fleet: Fleet) -> bool:
    """Whether its processes run, by what they write."""
    seen = [content(fleet, "/tick") for _ in range(2)]
    return seen[0] != seen[1]


def goes_on(fleet: Fleet) -> None:
    wait_until(lambda: ticks(fleet), deadline=20, what="the container to go on")


def test_agent_killed_during_a_commit_leaves_the_container_running_and_no_image(
    clean: Fleet, ticking: str
) -> None:
    before = clean.json("images")
    with background(clean, "n1", FLOTA, "commit", ticking, "half:1") as committing:
        wait_until(lambda: stands_still(clean), deadline=20, what="the container to stand still", pause=0.005)
        os.kill(clean.pid("n1", "agent"), signal.SIGKILL)
        assert committing.wait(30) == 1
    clean.flota("n1", "agent", "--detach")
    clean.wait_ready(3)
    goes_on(clean)
    assert clean.json("images") == before
    clean.flota("n1", "commit", ticking, "whole:1")
    goes_on(clean)
    clean.flota("n1", "rmi", "whole:1")


def test_container_that_stands_still_for_a_commit_can_be_removed(clean: Fleet, ticking: str) -> None:
    with background(clean, "n1", FLOTA, "commit", ticking, "late:1") as committing:
        wait_until(lambda: stands_still(clean), deadline=20, what="the container to stand still", pause=0.005)
        began = time.monotonic()
        clean.flota("n1", "rm", "-f", ticking)
        assert time.monotonic() - began < 10
        said, _ = committing.communicate(timeout=30)
        assert committing.returncode == 1 and b"no root file system" in said
    assert not [image for image in clean.json("images") if "late:1" in str(image["image"]["names"])]


def test_container_takes_execs_while_it_is_committed(clean: Fleet, ticking: str) -> None:
    """Without a pause at once, with one when it is over; what a person paused stays so."""
    for words in (("--pause=false", ticking, "moving:1"), (ticking, "still:1")):
        with background(clean, "n1", FLOTA, "commit", *words) as committing:
            while committing.poll() is None:
                assert clean.flota("n1", "exec", ticking, "echo", "here") == "here\n"
            assert committing.returncode == 0
            goes_on(clean)
    clean.flota("n1", "pause", ticking)
    clean.flota("n1", "commit", ticking, "paused:1")
    assert not ticks(clean)
    clean.flota("n1", "unpause", ticking)
    goes_on(clean)
    clean.flota("n1", "rmi", "moving:1", "still:1", "paused:1")


def test_container_that_starts_again_under_an_open_copy_has_the_one_mount_of_its_layer(
    clean: Fleet,
) -> None:
    """Two overlays above one upper directory would each have their own view of what is written."""
    words = ("sh", "-c", "[ -e /big ] || dd if=/dev/zero of=/big bs=1M count=64; echo go; sleep 1000")
    clean.flota("n1", "run", "-d", "--name", NAME, "--node", "n1", "--stop-signal", "KILL", IMAGE, *words)
    wait_until(lambda: "go" in clean.flota("n1", "logs", NAME), deadline=60)
    before = clean.flota("n1", "exec", NAME, "stat", "-c", "%d", "/")
    with background(clean, "n1", FLOTA, "cp", f"{NAME}:/big", "-") as copying:
        assert copying.stdout is not None and copying.stdout.read(1 << 16)
        clean.flota("n1", "restart", NAME)
        wait_until(lambda: clean.flota("n1", "logs", NAME).count("go") == 2, deadline=30)
        assert copying.poll() is None, "the copy is open still"
        assert clean.flota("n1", "exec", NAME, "stat", "-c", "%d", "/") == before
        copying.kill()
    clean.flota("n1", "exec", NAME, "sh", "-c", "echo after >/after")
    assert clean.flota("n1", "exec", NAME, "cat", "/after") == "after\n"
    clean.flota("n1", "stop", NAME)
    assert content(clean, "/after") == {"after": b"after\n"}


def test_mounts_of_a_container_are_seen(clean: Fleet, here: Path) -> None:
    """Volumes, binds and, while it runs, a tmpfs; read-only ones refuse."""
    mounts = ("-v", "kept:/v", "-v", f"{here}:/bound:ro", "--tmpfs", "/t", "--read-only")
    clean.flota(
        "n1",
        "run",
        "-d",
        "--name",
        NAME,
        "--node",
        "n1",
        *mounts,
        "--stop-signal",
        "KILL",
        IMAGE,
        "sleep",
        "99",
    )
    try:
        clean.flota("n1", "cp", f"{here}/file", f"{NAME}:/t")
        assert clean.flota("n1", "exec", NAME, "cat", "/t/file") == "local\n"
        for _ in range(2):
            clean.flota("n1", "cp", f"{here}/file", f"{NAME}:/v")
            assert content(clean, "/v/file") == {"file": b"local\n"}
            assert content(clean, "/bound/tree/a") == {"a": b"a\n"}
            for place, what in (("/bound", "mounted volume"), ("/etc", "container rootfs")):
                done = clean.attempt("n1", "cp", f"{here}/file", f"{NAME}:{place}")
                assert done.returncode == 1 and f"{what} is marked read-only" in done.stderr.decode()
            clean.attempt("n1", "stop", NAME)
    finally:
        clean.flota("n1", "rm", "-f", NAME)
        clean.flota("n1", "volume", "rm", "kept")
    assert stat.S_IMODE(os.stat(here / "file").st_mode) == 0o750


def test_files_copied_into_volumes_before_the_first_start_are_there_at_it(clean: Fleet, here: Path) -> None:
    clean.flota("n1", "volume", "create", "--node", "n2", "kept")
    words = ("-v", "kept:/kept", "-v", "/own/deep", IMAGE, "cat", "/kept/file", "/own/deep/file")
    clean.flota("n1", "create", "--name", NAME, "--node", "n2", *words)
    clean.flota("n1", "cp", str(here / "file"), f"{NAME}:/kept/")
    clean.flota("n1", "cp", str(here / "file"), f"{NAME}:/own/deep/")
    clean.flota("n1", "start", NAME)
    clean.flota("n1", "wait", NAME)
    assert clean.flota("n1", "logs", NAME) == "local\nlocal\n"
    clean.flota("n1", "rm", "-v", NAME)
    wait_until(lambda: len(clean.json("volume", "ls")) == 1, deadline=30, what="the named volume alone")
    clean.flota("n1", "volume", "rm", "kept")
