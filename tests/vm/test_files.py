"""Containers' files, asked for from another host, where systemd keeps containers in scopes of cgroup v2.

Who goes into a container's root knows by its cgroup whose it is; who makes an image of it freezes that.
"""

from __future__ import annotations

import pytest

from deploy.vmfleet import VmFleet
from tests.support.waiting import wait_until
from tests.vm.support import container, inside, on, status

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]
TREE = "mkdir /root/tree; cd /root/tree; seq 200000 >many; chmod 640 many; ln -s many link"
WATCH = 'while ! grep -q "frozen 1" {}/cgroup.events; do :; done; touch /root/stood-still'
COUNT = "head -c 20000000 /dev/urandom >/data; n=0; while :; do n=$((n + 1)); echo $n >/count; done"


def test_files_go_into_a_running_container_of_another_host_and_out_again(fleet: VmFleet) -> None:
    container(fleet, "box", "n2", "-v", "kept:/kept", "--tmpfs", "/scratch")
    pid = status(fleet, "box")["pid"]
    on(fleet.rig, "n1", TREE)
    for place in ("/kept", "/scratch", "/opt/new"):
        inside(fleet, "box", "mkdir -p /opt")
        fleet.flota("n1", "cp", "/root/tree", f"box:{place}")
    for place in ("/kept/tree", "/scratch/tree", "/opt/new"):
        said = inside(fleet, "box", f"cd {place}; stat -c '%a %u' many; readlink link; sha256sum <many")
        assert said.split()[:3] == ["640", "0", "many"], place
        assert said.split()[3] == on(fleet.rig, "n1", "sha256sum </root/tree/many").split()[0], place
        inside(fleet, "box", f"cd {place}; rm link; echo box >new")
        back = f"/root/back{place.replace('/', '-')}"
        fleet.flota("n1", "cp", f"box:{place}", back)
        said = on(fleet.rig, "n1", f"diff -r --no-dereference /root/tree {back} || true")
        assert said.splitlines() == ["Only in /root/tree: link", f"Only in {back}: new"], place
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
