"""Containers' files, asked for from elsewhere, where systemd keeps containers in scopes of cgroup v2.

Who goes into a container's root knows by its cgroup whose it is; who makes an image of it freezes that.
"""

from __future__ import annotations

import hashlib
import random
import stat
from pathlib import Path

import pytest

from deploy.vmfleet import VmFleet
from tests.support.waiting import wait_until
from tests.vm.support import container, inside, on, status

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]
WATCH = 'while ! grep -q "frozen 1" {}/cgroup.events; do :; done; touch /root/stood-still'
COUNT = "head -c 20000000 /dev/urandom >/data; n=0; while :; do n=$((n + 1)); echo $n >/count; done"


def test_files_go_into_a_running_container_and_out_again(fleet: VmFleet, tmp_path: Path) -> None:
    container(fleet, "box", "n2", "-v", "kept:/kept", "--tmpfs", "/scratch")
    pid = status(fleet, "box")["pid"]
    many = tmp_path / "tree" / "many"
    many.parent.mkdir()
    many.write_bytes(random.Random(1).randbytes(3_000_000))
    many.chmod(0o640)
    (many.parent / "link").symlink_to("many")
    digest = hashlib.sha256(many.read_bytes()).hexdigest()
    inside(fleet, "box", "mkdir -p /opt")
    for place, made in (("/kept", "/kept/tree"), ("/scratch", "/scratch/tree"), ("/opt/new", "/opt/new")):
        fleet.ask("cp", str(many.parent), f"box:{place}")
        look = f"cd {made}; stat -c '%a %u' many; readlink link; sha256sum <many; rm link"
        assert inside(fleet, "box", look).split()[:4] == ["640", "0", "many", digest], place
        back = tmp_path / made.replace("/", "-")
        fleet.ask("cp", f"box:{made}", str(back))
        assert [path.name for path in back.iterdir()] == ["many"], place
        assert (back / "many").read_bytes() == many.read_bytes(), place
        assert stat.S_IMODE((back / "many").stat().st_mode) == 0o640, place
    found = status(fleet, "box")
    assert (found["phase"], found["pid"]) == ("running", pid)


@pytest.mark.slow
def test_a_container_stands_still_while_it_is_made_an_image_and_goes_on(fleet: VmFleet) -> None:
    ident = container(fleet, "box", "n2", command=("sh", "-c", COUNT))
    wait_until(
        lambda: inside(fleet, "box", "cat /count 2>/dev/null || true").strip(), deadline=60, what="it counts"
    )
    scope = f"/sys/fs/cgroup/flota.slice/flota-{ident}.scope"
    on(fleet.rig, "n2", f"systemd-run -q --unit watch sh -c '{WATCH.format(scope)}'")
    fleet.ask("commit", "box", "still:1")
    on(fleet.rig, "n2", "test -e /root/stood-still")
    assert "frozen 0" in on(fleet.rig, "n2", f"cat {scope}/cgroup.events")
    before = int(inside(fleet, "box", "cat /count").strip() or 0)
    wait_until(
        lambda: int(inside(fleet, "box", "cat /count").strip() or 0) > before, deadline=60, what="more"
    )
    assert len(fleet.json("images", "--filter", "reference=still:1")) == 1
