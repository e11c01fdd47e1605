"""Hosts where Docker drops what nobody accepts: our rules in its chain for others, by real iptables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.spec import NetworkSpec, Subnet
from model.status import BoundPort
from tests.support.nethosts import OUTSIDE, NetHosts, address, inner4, net_hosts
from tests.support.talkers import answers, server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel
BRIDGE = NetworkSpec(name="lan", driver="bridge", subnets=(Subnet(cidr="10.201.0.0/16"),))
ENGINE = (
    "-P FORWARD DROP; -N DOCKER-USER; -N DOCKER; -A DOCKER-USER -j RETURN; -A FORWARD -j DOCKER-USER; "
    "-A FORWARD -o docker0 -j DOCKER"
)
"""What Docker Engine 20.10 makes, in short."""
OUR_MARK = "--comment flota"


@pytest.fixture
def hosts() -> Iterator[NetHosts]:
    with net_hosts(1, "fldu", compare=1.0) as made:
        made.carry({1: BRIDGE})
        near = made.container(1, 0, 1)
        made.publish(1, near, inner4(BRIDGE, 1, 0), BoundPort(target=80, published=80, protocol="tcp"))
        talker = server(str(made.hosts[1].run_dir / "ns" / near), "near")
        try:
            yield made
        finally:
            talker.close()


def passes(hosts: NetHosts) -> tuple[bool, bool]:
    """Whether its port is reached from outside, and whether the container reaches that."""
    (port,) = answers(f"/run/netns/{hosts.switch}", "tcp", [address(1)])
    near = hosts.hosts[1].call("namespaces")[0]
    ping = hosts.hosts[1].inside(near, "busybox", "ping", "-c1", "-W1", OUTSIDE, check=False)
    return not port[0].endswith("Error"), ping.returncode == 0


@pytest.mark.parametrize("kind", ["nft", pytest.param("legacy", marks=pytest.mark.slow)])
def test_what_docker_would_drop_passes_and_users_drops_are_final(hosts: NetHosts, kind: str) -> None:
    program, host = f"iptables-{kind}", hosts.hosts[1]

    def iptables(*rules: str) -> None:
        host.run("sh", "-ec", "; ".join(f"{program} {rule}" for rule in rules))

    def chain() -> list[str]:
        return host.run(program, "-S", "DOCKER-USER").stdout.splitlines()[1:]

    def stands() -> bool:
        found = chain()
        own = [OUR_MARK in line for line in found]
        return sum(own) == 9 and found[-1] == "-A DOCKER-USER -j RETURN" and all(own[-10:-1])

    assert passes(hosts) == (True, True)
    iptables(*ENGINE.split("; "))
    wait_until(stands, deadline=30, what="our rules")
    assert passes(hosts) == (True, True)
    iptables(f"-I DOCKER-USER -s {OUTSIDE} -p tcp -j DROP")
    assert passes(hosts) == (False, True)
    assert host.call("mutations") == host.call("mutations")
    iptables("-F DOCKER-USER", "-A DOCKER-USER -j RETURN")
    wait_until(stands, deadline=1 if kind == "nft" else 30, what="our rules again")
    assert passes(hosts) == (True, True)
    host.call("remove_all")
    assert chain() == ["-A DOCKER-USER -j RETURN"]
