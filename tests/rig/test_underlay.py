"""The hosts' own network changes under a running fleet: another MTU, another address. Containers stay."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.fleet import Fleet
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


def pids(fleet: Fleet) -> dict[str, int]:
    return {host: fleet.json("inspect", f"c{host}")[0]["status"]["pid"] for host in HOSTS}


@pytest.mark.parametrize("mode", ["routed", "bridged"])
def test_running_containers_get_the_mtu_that_their_host_has_now(clean: Fleet, mode: str) -> None:
    clean.flota("n1", "network", "create", "--opt", f"mode={mode}", "under")
    found = containers(clean, "under")
    before = pids(clean)
    try:
        for host in HOSTS:
            on_host(clean, host, "ip", "link", "set", "eth0", "mtu", "1400")
        for host in HOSTS:
            wait_until(lambda h=host: inner_mtu(clean, h) == 1350, deadline=10, what=f"1350 inside on {host}")
        assert reaches(clean, "n1", address(found["n2"], "under"), size=1300)
        mtus = {n["host"]["facts"]["mtu"] for n in clean.json("node", "ls")}
        assert mtus == {1400}
    finally:
        for host in HOSTS:
            on_host(clean, host, "ip", "link", "set", "eth0", "mtu", "1500")
    for host in HOSTS:
        wait_until(lambda h=host: inner_mtu(clean, h) == 1450, deadline=10, what=f"1450 inside on {host}")
    assert pids(clean) == before


@pytest.mark.parametrize("option", ["mode=routed", "mode=bridged", "encrypted"])
def test_a_host_that_gets_another_address_is_followed_by_its_peers(clean: Fleet, option: str) -> None:
    clean.flota("n1", "network", "create", "--opt", option, "under")
    found = containers(clean, "under")
    before = pids(clean)
    reached = lambda: reaches(clean, "n2", address(found["n3"], "under"))  # noqa: E731
    wait_until(reached, deadline=10, what="n3's container is reached")

    def move(new: str, old: str) -> None:
        on_host(clean, "n3", "sh", "-c",
                f"ip address del {old}/24 dev eth0 && ip address add {new}/24 dev eth0 "
                "&& ip route replace default via 198.18.0.1")  # fmt: skip
        for host in ("n1", "n2"):
            wait_until(
                lambda h=host: reaches(clean, h, address(found["n3"], "under")),
                deadline=15,
                what=f"n3's container is reached from {host} again",
            )

    old = next(h.address for h in clean.rig.hosts if h.name == "n3")
    try:
        move("198.18.0.77", old)
        told = {n["host"]["spec"]["name"]: n["host"]["facts"]["address"] for n in clean.json("node", "ls")}
        assert told["n3"] == "198.18.0.77"
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
                    deadline=5,
                    what=f"{host} reaches {other} by port {port}",
                )
        refused = clean.attempt("n1", "fleet", "update", "--vni-range", "0-5")
        assert refused.returncode and b"no range of VNIs" in refused.stderr
        assert pids(clean) == before
        assert b"all is well" in clean.attempt("n1", "network", "doctor").stdout
    finally:
        clean.flota("n1", "fleet", "update", "--vxlan-port", "4789", "--vxlan-source-ports", "auto")
