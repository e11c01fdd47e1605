"""Networks and ports of containers by the `flota` command, against a fleet in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from model.status import BoundPort
from tests.support.servedfleet import ServedFleet, served


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    with served(tmp_path) as made:
        yield made


def test_container_goes_on_networks_and_off_them(fleet: ServedFleet) -> None:
    fleet.ok("network", "create", "--subnet", "10.9.0.0/24", "--aux-address", "r=10.9.0.7", "back")
    fleet.ok("network", "create", "spare")
    fleet.ok("run", "-d", "--name", "web", "box:1", "sleep")
    option = "com.docker.network.endpoint.ifname=lan0"
    fleet.ok("network", "connect", "--alias", "db", "--ip", "10.9.0.5", "--driver-opt", option, "back", "web")
    [wish] = fleet.json("inspect", "web")[0]["instance"]["attachments"]
    assert (wish["aliases"], wish["ipv4"], wish["ifname"]) == (["db"], "10.9.0.5", "lan0")
    assert fleet.ok("network", "prune", "-f").splitlines() == ["Deleted Networks:", "spare"]
    assert fleet.ok("network", "prune", "-f", "--filter", "until=24h") == ""
    fleet.ok("network", "disconnect", "back", "web")
    assert not fleet.json("inspect", "web")[0]["instance"]["attachments"]
    assert [n["network"]["spec"]["name"] for n in fleet.json("network", "ls", "-f", "name=ack")] == ["back"]
    assert fleet.flota("network", "ls", "--filter", "colour=red").returncode == 1


def test_ports_of_a_container_are_updated(fleet: ServedFleet) -> None:
    fleet.ok("run", "-d", "--name", "web", "-p", "8080:80", "box:1", "sleep")
    fleet.ok("update", "--publish-add", "9000:81", "--publish-rm", "8080:80", "web")
    ports = fleet.json("inspect", "web")[0]["instance"]["spec"]["ports"]
    assert [(p["published"], p["target"]) for p in ports] == [(9000, 81)]
    assert b"nothing to change" in fleet.flota("update", "web").stderr


def test_ports_of_a_container_are_shown_as_where_they_are_open(fleet: ServedFleet) -> None:
    fleet.ok("create", "--name", "web", "box:1", "sleep")
    bound = BoundPort(target=80, published=8080, protocol="tcp")
    both = (bound, replace(bound, published=8081, host_ip="fd00::1"))
    [container] = [c for host in fleet.fleet.hosts.values() for c in host.containers.values()]
    fleet.do(container.become, ports=both)
    assert fleet.ok("port", "web") == "80/tcp -> 0.0.0.0:8080\n80/tcp -> [fd00::1]:8081\n"
    assert fleet.ok("port", "web", "80") == "0.0.0.0:8080\n[fd00::1]:8081\n"
    assert fleet.flota("port", "web", "81").returncode == 1
