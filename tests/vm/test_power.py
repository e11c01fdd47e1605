"""Hosts that go down and come back: in good order, by a loss of power, by a pause of the whole machine."""

from __future__ import annotations

import pytest

from deploy.vmfleet import VmFleet
from tests.support.waiting import wait_until
from tests.vm.conftest import HOSTS
from tests.vm.support import (
    IMAGE,
    PATIENCE,
    container,
    inside,
    ipv4,
    looked,
    reboot,
    replicas,
    status,
    wait_replicas,
    wait_states,
)

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]
SERVE = ("sh", "-c", "echo there >/www/index.html; exec httpd -f -p 80 -h /www")


def _runs(fleet: VmFleet, name: str) -> bool:
    return status(fleet, name).get("phase") == "running"


@pytest.mark.slow
def test_a_rebooted_host_starts_its_containers_by_their_policy_and_is_reached_again(fleet: VmFleet) -> None:
    fleet.ask("network", "create", "net1")
    container(fleet, "always", "n2", "--restart", "always", "--network", "net1", command=SERVE)
    container(fleet, "never", "n2", "--network", "net1")
    container(fleet, "asker", "n1", "--network", "net1")
    before = status(fleet, "always")["started_at"]
    reboot(fleet.rig, "n2")
    wait_states(fleet, n2="ready")
    # What the fleet knew of it stays until its host has spoken again.
    wait_until(
        lambda: _runs(fleet, "always") and status(fleet, "always")["started_at"] > before,
        deadline=PATIENCE,
        what="it runs again",
        pause=0.5,
    )
    wait_until(
        lambda: status(fleet, "never").get("phase") == "exited",
        deadline=PATIENCE,
        what="the other doesn't",
        pause=0.5,
    )

    def reached() -> bool:
        """By the address that it has now: its old one may rest for a while."""
        get = rf"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 {ipv4(fleet, 'always')} 80 | tail -n 1"
        return inside(fleet, "asker", get).strip() == "there"

    wait_until(reached, deadline=PATIENCE, what="its address", pause=0.5)
    assert ipv4(fleet, "always") != ipv4(fleet, "asker")


def test_what_was_acknowledged_outlives_a_loss_of_the_controllers_power(fleet: VmFleet) -> None:
    fleet.ask("network", "create", "net1")
    names = []
    for number in range(5):
        names.append(f"svc{number}")
        words = ("--name", names[-1], "--replicas", "0", "--network", "net1")
        fleet.ask("service", "create", *words, IMAGE, "true")
    container(fleet, "far", "n3")
    pid = status(fleet, "far")["pid"]
    fleet.rig.crash("n1")
    fleet.rig.boot("n1")
    wait_states(fleet, **dict.fromkeys(HOSTS, "ready"))
    assert {one["service"]["spec"]["name"] for one in looked(fleet, "service", "ls")} == set(names)
    assert "net1" in {one["network"]["spec"]["name"] for one in looked(fleet, "network", "ls")}
    wait_until(lambda: _runs(fleet, "far"), deadline=PATIENCE, what="what ran elsewhere")
    assert status(fleet, "far")["pid"] == pid


def test_a_host_that_was_frozen_gives_up_what_was_replaced_meanwhile(fleet: VmFleet) -> None:
    words = ("--name", "web", "--replicas", "3", "--replicas-max-per-node", "2", "--stop-grace-period", "1s")
    fleet.ask("service", "create", *words, IMAGE, "sleep", "100000")
    before = {one["instance"]["id"] for one in wait_replicas(fleet, "web", 3)}
    fleet.rig.freeze("n3")
    wait_states(fleet, n3="lost")
    held = {one["instance"]["id"] for one in wait_replicas(fleet, "web", 3, but="n3")}
    assert held != before
    fleet.rig.thaw("n3")
    wait_states(fleet, n3="ready")
    left = "find /sys/fs/cgroup/flota.slice -maxdepth 1 -name '*.scope' | wc -l"
    wait_until(
        lambda: fleet.rig.exec("n3", ["sh", "-c", left]).stdout.split() == [b"0"],
        deadline=PATIENCE,
        what="the old one's end",
        pause=1,
    )
    assert {one["instance"]["id"] for one in replicas(fleet, "web")} == held
