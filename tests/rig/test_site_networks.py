"""Containers on the site's own network (macvlan): who reaches whom × IPv4, IPv6 × TCP, UDP, ICMP, a mebibyte.

The hosts' link is the site's network, the switch its router and a machine of the site.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from deploy.fleet import Fleet
from deploy.rig.netns import OUTSIDE_ADDRESS
from tests.rig.conftest import IMAGE, RIG, running
from tests.rig.support import AT_ONCE, local_pid, on_host, wait_replicas
from tests.rig.test_overlay_table import BLOB, GIVER, TAKER
from tests.support.hostprocess import run_in
from tests.support.talkers import Talker, answers, server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig

ROUTER6 = "fd00:5::1"
SWITCH = f"/run/netns/{RIG}-sw"
WHOLE = f"{len(BLOB)} {hashlib.sha256(BLOB).hexdigest()}"
IPV4 = ("--subnet", "198.18.0.0/24", "--gateway", OUTSIDE_ADDRESS, "--ip-range", "198.18.0.128/25")
IPV6 = ("--aux-address", "printer=198.18.0.130", "--subnet", "fd00:5::/64", "--gateway", ROUTER6)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running(tmp_path_factory.mktemp("disk"), 2) as fleet:
        subprocess.run(
            ["ip", "-n", f"{RIG}-sw", "address", "add", f"{ROUTER6}/64", "dev", "br0", "nodad"], check=True
        )
        words = ("network", "create", "--driver", "macvlan", *IPV4, *IPV6, "--opt", "parent=eth0", "lan")
        fleet.flota("n1", *words)
        yield fleet


def container(fleet: Fleet, name: str, host: str, *words: str) -> tuple[str, str, str]:
    """Its namespace and its addresses."""
    on = words or ("--network", "lan")
    fleet.flota("n1", "run", "-d", "--name", name, *on, "--node", host, IMAGE, "sleep", "10000")
    status = fleet.json("inspect", name)[0]["status"]
    foot = next(e for e in status["endpoints"] if e["network_name"] == "lan")
    return f"/proc/{local_pid(fleet, host, status['pid'])}/ns/net", foot["ipv4"], foot["ipv6"]


def trouble(space: str, name: str, targets: tuple[str, ...]) -> list[str]:
    """What does not pass from that namespace to the one that says its name."""
    failed = []
    for target in targets:
        for kind in ("tcp", "udp"):
            ((heard, *_),) = answers(space, kind, [target])
            if heard != name:
                failed.append(f"{kind} to {name} {target}: {heard}")
        ping = ["busybox", "ping6" if ":" in target else "ping", "-c1", "-W2", target]
        if run_in(space, ping, check=False, timeout=10).returncode:
            failed.append(f"icmp to {name} {target}")
        taken = run_in(space, ["python3", "-c", TAKER, target], check=False, timeout=20).stdout.strip()
        if taken != WHOLE:
            failed.append(f"a mebibyte from {name} {target}")
    return failed


def test_all_traffic_passes_between_containers_hosts_and_machines_of_the_site(site: Fleet) -> None:
    host = f"/run/netns/{RIG}-n1"
    client, *mine = container(site, "client", "n1")
    near, *here = container(site, "near", "n1")
    far, *there = container(site, "far", "n2")
    (shim,) = (f["ipv4"] for f in json.loads(_resolver(site, "client")))
    with ExitStack() as stack:
        ends = {"near": near, "far": far, "host": host, "stranger": SWITCH, "client": client}
        for name, space in ends.items():
            stack.callback(server(space, name).close)
            stack.callback(Talker(space, GIVER).close)
        failed = trouble(client, "near", tuple(here)) + trouble(client, "far", tuple(there))
        failed += trouble(client, "stranger", (OUTSIDE_ADDRESS, ROUTER6))
        failed += trouble(client, "host", (shim,))
        failed += trouble(host, "client", tuple(mine)) + trouble(SWITCH, "client", tuple(mine))
        assert failed == []
        assert answers(client, "tcp", ["198.18.0.11"])[0][0] == "host", "by its own address too"
    for name in ("near", "far", "near.lan"):
        said = site.flota("n1", "exec", "client", "nslookup", name)
        assert (here if name.startswith("near") else there)[0] in said
    addresses = {a for addresses in (mine, here, there) for a in addresses}
    assert len(addresses) == 6 and not addresses & {"198.18.0.128", "198.18.0.130", shim}
    for name in ("client", "near", "far"):
        site.flota("n1", "rm", "-f", name)


def _resolver(fleet: Fleet, name: str) -> str:
    conf = fleet.flota("n1", "exec", name, "cat", "/etc/resolv.conf")
    return json.dumps([{"ipv4": line.split()[1]} for line in conf.splitlines() if line.startswith("names")])


def test_address_that_a_machine_of_the_site_has_is_told_and_passed_over(site: Fleet) -> None:
    taken = _next_address(site)
    subprocess.run(["ip", "-n", f"{RIG}-sw", "address", "add", f"{taken}/24", "dev", "br0"], check=True)
    try:
        _, ipv4, _ = container(site, "dodges", "n1")
        assert ipv4 != taken
        strangers = json.loads(site.flota("n1", "network", "inspect", "lan"))[0]["strangers"]
        (link,) = json.loads(
            run_in(SWITCH, ["ip", "-j", "link", "show", "br0"], check=True, timeout=5).stdout
        )
        assert strangers == {taken: f"{link['address']}, met by n1"}
        words = ("run", "-d", "--network", f"name=lan,ip={taken}", "--node", "n1", IMAGE, "sleep", "1")
        refused = site.attempt("n1", *words)
        assert refused.returncode and link["address"] in refused.stderr.decode()
        events = site.flota(
            "n1", "events", "--since", "60s", "--until", "0s", "--filter", "event=address-taken"
        )
        assert taken in events
    finally:
        subprocess.run(["ip", "-n", f"{RIG}-sw", "address", "del", f"{taken}/24", "dev", "br0"], check=True)
        for one in site.json("ps", "-a"):
            site.attempt("n1", "rm", "-f", one["instance"]["id"])


def _next_address(fleet: Fleet) -> str:
    """That the next container on n1 would get."""
    container(fleet, "first", "n1")
    _, second, _ = container(fleet, "second", "n1")
    for name in ("first", "second"):
        fleet.flota("n1", "rm", "-f", name)
    kind, _, last = second.rpartition(".")
    return f"{kind}.{int(last) + 1}"


def test_host_without_the_link_is_passed_over_and_said_why(site: Fleet) -> None:
    site.flota("n1", "network", "create", "--driver", "macvlan", "--subnet", "203.0.113.0/24",
               "--opt", "parent=label:lan", "office")  # fmt: skip
    refused = site.attempt("n1", "run", "-d", "--network", "office", IMAGE, "sleep", "1")
    assert "without a label lan that names a link (network office)" in refused.stderr.decode()
    site.flota("n1", "node", "update", "--label-add", "lan=eth0", "n2")
    ident = site.flota("n1", "run", "-d", "--network", "office", IMAGE, "sleep", "1000").strip()
    assert site.json("inspect", ident)[0]["host_name"] == "n2"
    site.flota("n1", "rm", "-f", ident)
    site.flota("n1", "network", "rm", "office")


def page_of(where: str) -> str:
    """As a machine of the site gets it; empty where there is none."""
    words = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"
    argv = ["python3", "-c", words, f"http://{where}/"]
    return run_in(SWITCH, argv, check=False, timeout=10).stdout.strip()


def test_service_on_the_sites_network_has_names_and_ports_of_every_host(site: Fleet) -> None:
    words = ("service", "create", "--name", "web", "--network", "lan", "--replicas", "2", "-p", "8080:80")
    page = "mkdir -p /www && hostname > /www/index.html && exec httpd -f -p 80 -h /www"
    site.flota("n1", *words, *AT_ONCE, IMAGE, "sh", "-c", page)
    replicas = wait_replicas(site, "web", 2)
    own = {e["ipv4"] for r in replicas for e in r["status"]["endpoints"] if e["network_name"] == "lan"}
    container(site, "asker", "n1")

    def found() -> bool:
        said = site.flota("n1", "exec", "asker", "nslookup", "web")
        return all(address in said for address in own)

    def heard_by_one_host() -> set[str] | None:
        pages = {page_of("198.18.0.11:8080") for _ in range(4)}
        return pages if len(pages - {""}) == 2 else None

    wait_until(found, deadline=10, what="the addresses of both")
    heard = wait_until(heard_by_one_host, deadline=15, what="both replicas to answer, from the site")
    for address in own:
        assert page_of(address) in heard
    site.flota("n1", "service", "rm", "web")
    site.flota("n1", "rm", "-f", "asker")
    wait_until(lambda: not site.json("ps", "-a"), deadline=20, what="the service is gone")


def test_nothing_is_left_on_a_host_when_the_network_is_gone(site: Fleet) -> None:
    for one in site.json("ps", "-a"):
        site.flota("n1", "rm", "-f", one["instance"]["id"])
    wait_until(lambda: not site.json("ps", "-a"), deadline=10, what="nobody is on it")
    before = on_host(site, "n1", "ip", "-br", "link")
    assert "flm" in before
    site.flota("n1", "network", "rm", "lan")
    wait_until(
        lambda: "flm" not in on_host(site, "n1", "ip", "-br", "link"), deadline=10, what="the shim is gone"
    )
    assert "198.18.0.1" in on_host(site, "n1", "ip", "route", "show", "default")
