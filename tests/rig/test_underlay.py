"""The hosts' own network changes under a running fleet: another MTU, another address. Containers stay."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from deploy.fleet import Fleet
from tests.kernel.test_offload import RELAY
from tests.rig.conftest import IMAGE
from tests.rig.support import address, on_host
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
HOSTS = ("n1", "n2", "n3")


def containers(fleet: Fleet, network: str) -> dict[str, dict[str, Any]]:
    """One that sleeps on each host, by host."""
    for host in HOSTS:
        fleet.flota("n1", "run", "-d", "--name", f"c{host}", "--network", network, "--node", host, IMAGE,
                    "sleep", "10000")  # fmt: skip
    return {host: fleet.json("inspect", f"c{host}")[0] for host in HOSTS}


def reaches(fleet: Fleet, host: str, target: str, *, size: int = 56) -> bool:
    """By ping from the host's container; without NET_RAW it can't itself."""
    pid = str(fleet.json("inspect", f"c{host}")[0]["status"]["pid"])
    words = ["nsenter", "-t", pid, "--net", "busybox", "ping", "-c1", "-W1", "-s", str(size), target]
    return fleet.rig.exec(host, words, check=False).returncode == 0


def inner_mtu(fleet: Fleet, host: str) -> int:
    text = fleet.flota("n1", "exec", f"c{host}", "ip", "link", "show", "eth0")
    return int(text.split(" mtu ")[1].split()[0])


KINDS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "routed": ((), 50),
    "bridged": (("--opt", "mode=bridged"), 50),
    "encrypted": (("--opt", "encrypted"), 60),
    "direct": (("--opt", "direct=true"), 50),
    "host-gw": (("--driver", "host-gw"), 0),
}
"""How to make a network, and what its packets have less than the underlay's."""


def pids(fleet: Fleet) -> dict[str, int]:
    return {host: fleet.json("inspect", f"c{host}")[0]["status"]["pid"] for host in HOSTS}


@pytest.mark.parametrize("kind", ["routed", "bridged", "host-gw"])
def test_running_containers_get_the_mtu_that_their_host_has_now(clean: Fleet, kind: str) -> None:
    words, less = KINDS[kind]
    clean.flota("n1", "network", "create", *words, "under")
    found = containers(clean, "under")
    before = pids(clean)
    try:
        for host in HOSTS:
            on_host(clean, host, "ip", "link", "set", "eth0", "mtu", "1400")
        for host in HOSTS:
            wait_until(lambda h=host: inner_mtu(clean, h) == 1400 - less, deadline=20, what=f"less on {host}")
        wait_until(
            lambda: reaches(clean, "n1", address(found["n2"], "under"), size=1300),
            deadline=10,
            what="a large packet to arrive",
        )
        wait_until(
            lambda: {n["host"]["facts"]["mtu"] for n in clean.json("node", "ls")} == {1400},
            deadline=10,
            what="every host to say so",
        )
    finally:
        for host in HOSTS:
            on_host(clean, host, "ip", "link", "set", "eth0", "mtu", "1500")
    for host in HOSTS:
        wait_until(lambda h=host: inner_mtu(clean, h) == 1500 - less, deadline=20, what=f"more on {host}")
    assert pids(clean) == before


def told(fleet: Fleet, host: str) -> str:
    """The address by which the fleet knows it."""
    found = {n["host"]["spec"]["name"]: n["host"]["facts"]["address"] for n in fleet.json("node", "ls")}
    return str(found[host])


def readdress(fleet: Fleet, host: str, new: str, old: str) -> None:
    gate = new.rpartition(".")[0] + ".1"
    on_host(fleet, host, "sh", "-c",
            f"ip address del {old}/24 dev eth0 && ip address add {new}/24 dev eth0 "
            f"&& ip route replace default via {gate}")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_that_gets_another_address_is_followed_by_its_peers(clean: Fleet, kind: str) -> None:
    clean.flota("n1", "network", "create", *KINDS[kind][0], "under")
    found = containers(clean, "under")
    before = pids(clean)
    wait_until(
        lambda: reaches(clean, "n2", address(found["n3"], "under")),
        deadline=10,
        what="n3's container is reached",
    )

    def move(new: str, old: str) -> None:
        readdress(clean, "n3", new, old)
        for host in ("n1", "n2"):
            wait_until(
                lambda h=host: reaches(clean, h, address(found["n3"], "under")),
                deadline=15,
                what=f"n3's container is reached from {host} again",
            )

    old = next(h.address for h in clean.rig.hosts if h.name == "n3")
    try:
        move("198.18.0.77", old)
        # without a tunnel its neighbours still know its MAC, and reach it before they are told
        wait_until(lambda: told(clean, "n3") == "198.18.0.77", deadline=10, what="the fleet knows")
    finally:
        move(old, "198.18.0.77")
    assert pids(clean) == before


def test_tunnels_move_to_another_port_on_all_hosts_and_containers_stay(clean: Fleet) -> None:
    clean.flota("n1", "network", "create", "under")
    found = containers(clean, "under")
    before = pids(clean)
    try:
        for port in ("8472", "4789"):
            clean.flota("n1", "fleet", "update", "--vxlan-port", port, "--vxlan-source-ports", "40000-40999")
            for host, other in (("n1", "n2"), ("n2", "n3"), ("n3", "n1")):
                wait_until(
                    lambda h=host, o=other, p=port: (
                        f"srcport 40000 40999 dstport {p}" in on_host(clean, h, "ip", "-d", "link")
                        and reaches(clean, h, address(found[o], "under"))
                    ),
                    deadline=15,
                    what=f"{host} reaches {other} by port {port}",
                )
        refused = clean.attempt("n1", "fleet", "update", "--vni-range", "0-5")
        assert refused.returncode and b"no range of VNIs" in refused.stderr
        assert pids(clean) == before
        wait_until(lambda: b"all is well" in clean.attempt("n1", "network", "doctor").stdout, deadline=10)
    finally:
        clean.flota("n1", "fleet", "update", "--vxlan-port", "4789", "--vxlan-source-ports", "auto")


def test_direct_overlay_follows_a_host_that_moves_behind_a_router_and_back(clean: Fleet) -> None:
    clean.flota("n1", "network", "create", "--opt", "direct=true", "under")
    found = containers(clean, "under")
    before = pids(clean)
    outside = clean.rig.outside
    for words in ("ip address add 198.18.8.1/24 dev br0", "echo 1 > /proc/sys/net/ipv4/ip_forward"):
        assert outside(["sh", "-c", words]).returncode == 0
    old = next(h.address for h in clean.rig.hosts if h.name == "n3")

    def leads(link: str) -> bool:
        """Whether n1's route to n3's block does, and packets pass."""
        target = address(found["n3"], "under")
        way = on_host(clean, "n1", "ip", "route", "get", target)
        return f" dev {link}" in way and reaches(clean, "n1", target)

    try:
        wait_until(lambda: leads("eth0"), deadline=10, what="the direct way")
        for new, was, link in (("198.18.8.13", old, "flx"), (old, "198.18.8.13", "eth0")):
            readdress(clean, "n3", new, was)
            wait_until(lambda way=link: leads(way), deadline=15, what=f"n3 is reached by {link}")
            target = address(found["n2"], "under")
            wait_until(lambda t=target: reaches(clean, "n3", t), deadline=10, what="n3 reaches n2")
    finally:
        outside(["ip", "address", "del", "198.18.8.1/24", "dev", "br0"])
    assert pids(clean) == before


def test_a_card_that_spoils_checksums_is_spared_when_a_network_comes_up(clean: Fleet) -> None:
    """Played by a relay of the switch for what n1 sends to n2 through tunnels."""
    words = ("ip", "netns", "exec", f"{clean.rig.name}-sw")
    for line in (
        "ip link add relay0 type veth peer name relay1",
        "ip link set relay0 up",
        "ip link set relay1 up",
        "tc qdisc add dev n1 clsact",
        "tc filter add dev n1 ingress protocol ip u32 match ip protocol 17 0xff match ip dport 4789 0xffff "
        "match ip dst 198.18.0.12/32 action mirred egress redirect dev relay0",
    ):
        subprocess.run([*words, *line.split()], check=True)
    code = RELAY.replace('"p2"', '"n2"')
    relay = subprocess.Popen([*words, sys.executable, "-u", "-c", code], stdout=subprocess.PIPE)
    try:
        assert relay.stdout is not None and relay.stdout.readline() == b"up\n"
        clean.flota("n1", "network", "create", "--subnet", "10.66.0.0/16", "under")
        containers(clean, "under")

        def spared() -> set[str]:
            nodes = clean.json("node", "ls")
            return {n["host"]["spec"]["name"] for n in nodes if not n["host"]["facts"].get("checksums", True)}

        wait_until(lambda: spared() == {"n1"}, deadline=30, what="n1 spares its card")
        said = clean.attempt("n1", "network", "doctor").stdout.decode()
        assert "spoils checksums" in said and "fault" not in said, said
        since = ("--since", "5m", "--until", "0s", "--filter", "event=repair")
        wait_until(lambda: "tunnels to" in clean.flota("n1", "events", *since), deadline=5, what="an event")
    finally:
        relay.kill()
        relay.communicate()
        subprocess.run([*words, "tc", "qdisc", "del", "dev", "n1", "clsact"], check=True)
        subprocess.run([*words, "ip", "link", "del", "relay0"], check=True)
