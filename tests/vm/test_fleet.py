"""Bare guests made a fleet over SSH; services on it, their networks, their limits as the kernel has them."""

from __future__ import annotations

import json

import pytest

from deploy.vmfleet import VmFleet
from tests.support.waiting import wait_until
from tests.vm.conftest import HOSTS
from tests.vm.support import IMAGE, PATIENCE, container, inside, on, wait_replicas

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]
SERVE = "trap 'exit 0' TERM; echo $HOSTNAME > /www/index.html; httpd -f -p 80 -h /www & wait"


def test_provisioning_installs_packages_and_units(fleet: VmFleet) -> None:
    for host in HOSTS:
        assert on(fleet.rig, host, "dpkg-query -W -f '${Status}' runc conmon").count("ok installed") == 2
        assert on(fleet.rig, host, "systemctl is-active flota-agent; systemctl is-enabled flota-agent") == (
            "active\nenabled\n"
        )


@pytest.mark.slow
def test_provisioning_done_again_changes_nothing(fleet: VmFleet) -> None:
    starts = "systemctl show -p NRestarts,ActiveEnterTimestampMonotonic flota-agent"
    before = [on(fleet.rig, host, starts) for host in HOSTS]
    results = [json.loads(line) for line in fleet.provision(HOSTS, "--format", "json").splitlines()]
    assert {one["name"]: one["result"] for one in results} == dict.fromkeys(HOSTS, "already")
    assert [on(fleet.rig, host, starts) for host in HOSTS] == before


def test_a_service_on_an_overlay_answers_by_name_from_three_hosts(fleet: VmFleet) -> None:
    fleet.flota("n1", "network", "create", "net1")
    fleet.flota(
        "n1", "service", "create", "--name", "web", "--replicas", "3", "--replicas-max-per-node", "1",
        "--network", "net1", IMAGE, "sh", "-c", SERVE
    )  # fmt: skip
    placed = wait_replicas(fleet, "web", 3)
    assert {one["host_name"] for one in placed} == set(HOSTS)
    container(fleet, "asker", "n3", "--network", "net1")
    get = r"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 web 80 | tail -n 1"  # busybox's wget dies when emulated
    ask = f"for i in 1 2 3 4 5 6 7 8 9; do {get}; done; true"
    wait_until(
        lambda: len(set(inside(fleet, "asker", ask).split())) == 3, deadline=PATIENCE, what="three who answer"
    )


def test_limits_are_the_kernels_cgroup_v2_files_in_a_scope_of_systemds(fleet: VmFleet) -> None:
    container(fleet, "tight", "n2", "--memory", "64m", "--cpus", "0.2", "--pids-limit", "50")
    files = "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max"
    assert inside(fleet, "tight", files).split() == ["67108864", "20000", "100000", "50"]
    found = on(fleet.rig, "n2", "find /sys/fs/cgroup/flota.slice -maxdepth 1 -name '*.scope'").split()
    assert len(found) == 1
    assert on(fleet.rig, "n2", f"cat {found[0]}/memory.max").strip() == "67108864"
    eat = "tail /dev/zero; echo $?"
    assert inside(fleet, "tight", eat).strip() == "137"
    assert "oom_kill 0" not in on(fleet.rig, "n2", f"cat {found[0]}/memory.events")
