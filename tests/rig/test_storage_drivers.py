"""Acts on containers' files under every storage driver but the default one, which all other tests have."""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.busybox import root_tar
from deploy.fleet import Fleet
from deploy.rig.netns import NetnsRig
from tests.rig.conftest import IMAGE, RIG
from tests.support import btrfs, census
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
STATE = "/var/lib/flota/agent/images"


@pytest.fixture(scope="module", params=["btrfs", "vfs"])
def one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet of one host with that driver."""
    disk = tmp_path_factory.mktemp("disk")
    with ExitStack() as stack:
        stack.enter_context(census.unchanged())
        if request.param == "btrfs":
            disk = stack.enter_context(btrfs.mounted(disk))
        rig = NetnsRig(RIG, disk=disk, run=Path(f"/run/flota-{RIG}"))
        rig.down()
        fleet = Fleet(rig)
        stack.callback(fleet.stop)
        rig.up(1)
        words = ("--address", rig.hosts[0].address, "--cgroup-parent", f"/flota-{RIG}-n1")
        fleet.flota("n1", "up", "--name", "n1", *words, "--storage-driver", request.param)
        fleet.wait_ready(1)
        fleet.load_everywhere(IMAGE, root_tar({"etc/low": b"low\n", "etc/gone": b"x", "etc/kept": b"kept\n"}))
        yield fleet


@pytest.fixture
def box(one: Fleet) -> Iterator[str]:
    change = "echo new >/etc/new; echo more >>/etc/low; rm /etc/gone; touch /ready"
    script = f"[ -e /ready ] || {{ {change}; }}; exec sleep 1000"
    one.flota("n1", "run", "-d", "--name", "box", "--stop-signal", "KILL", IMAGE, "sh", "-c", script)
    one.flota("n1", "exec", "box", "sh", "-c", "while ! [ -e /ready ]; do usleep 1000; done")
    yield "box"
    one.flota("n1", "rm", "-f", "box")


def driver_of(fleet: Fleet) -> str:
    return str(fleet.json("inspect", "--type", "node", "n1")[0]["host"]["facts"]["storage_driver"])


def test_info_says_which_driver_and_why(one: Fleet) -> None:
    said = one.flota("n1", "info")
    assert f"Storage drivers: {driver_of(one)} on n1: asked for" in said


def test_diff_tells_what_the_container_changed(one: Fleet, box: str) -> None:
    expected = {"C /etc", "C /etc/low", "D /etc/gone", "A /etc/new", "A /ready"}
    for _ in ("running", "stopped"):
        assert expected <= set(one.flota("n1", "diff", box).splitlines())
        assert "C /etc/kept" not in one.flota("n1", "diff", box)
        one.flota("n1", "stop", box)


def test_copies_go_in_and_out_and_outlive_a_restart(one: Fleet, box: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from outside\n")
    one.flota("n1", "cp", str(tmp_path / "file"), f"{box}:/etc/copied")
    one.flota("n1", "restart", box)
    assert one.flota("n1", "exec", box, "cat", "/etc/copied", "/etc/new") == "from outside\nnew\n"
    one.flota("n1", "stop", box)
    one.flota("n1", "cp", f"{box}:/etc/low", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b"low\nmore\n"


def test_export_is_the_whole_tree(one: Fleet, box: str) -> None:
    done = one.attempt("n1", "export", box)
    assert done.returncode == 0, done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
    assert {"etc/kept", "etc/new", "ready"} <= names and "etc/gone" not in names


def test_commit_makes_an_image_of_the_changes_alone(one: Fleet, box: str) -> None:
    one.flota("n1", "commit", box, "made:1")
    said = one.flota("n1", "run", "--rm", "made:1", "sh", "-c", "cat /etc/low /etc/new; ls /etc")
    assert said.startswith("low\nmore\nnew\n") and "kept" in said and "gone" not in said
    sizes = [row["image"]["layer_sizes"] for row in one.json("inspect", "--type", "image", "made:1")]
    assert sizes[0][1] < 64 << 10 < sizes[0][0]
    one.flota("n1", "rmi", "made:1")


def test_removed_container_leaves_nothing_on_disk(one: Fleet) -> None:
    one.flota("n1", "run", "--rm", IMAGE, "touch", "/file")
    wait_until(
        lambda: not one.rig.exec("n1", ["ls", f"{STATE}/roots"]).stdout, deadline=10, what="no root is left"
    )


def test_agent_of_another_driver_is_refused_while_there_are_containers(one: Fleet, box: str) -> None:
    one.flota("n1", "stop", box)
    mine = driver_of(one)
    os.kill(pid := one.pid("n1", "agent"), signal.SIGTERM)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), deadline=20, what="the agent has ended")
    other = one.attempt("n1", "agent", "--detach", "--storage-driver", "overlay2")
    assert other.returncode != 0 and f"were made by {mine}".encode() in other.stderr
    one.flota("n1", "agent", "--detach")
    one.wait_ready(1)
    one.flota("n1", "start", box)
    assert one.flota("n1", "exec", box, "cat", "/etc/new") == "new\n"
