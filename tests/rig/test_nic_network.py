"""A network on a second link of three hosts, by a bridge each: who reaches whom, and what becomes of what the
hosts had on that link."""

from __future__ import annotations

import hashlib
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.fleet import Fleet
from deploy.rig.netns import OUTSIDE_ADDRESS, SITE_ROUTER, SITE_ROUTER6, site_addresses_of
from tests.rig.conftest import IMAGE, RIG, running
from tests.rig.support import local_pid, on_host
from tests.rig.test_overlay_table import BLOB, GIVER, TAKER
from tests.support.dhcpserver import serving_dhcp
from tests.support.hostprocess import run_in
from tests.support.talkers import Talker, answers, server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
HOSTS = ("n1", "n2", "n3")
STRANGER = f"/run/netns/{RIG}-sw"
CREATE = (
    "network create --driver nic --opt parent=eth1 --subnet 198.18.64.0/24 --ip-range 198.18.64.128/25 "
    f"--gateway {SITE_ROUTER} --subnet fd18:64::/64 --ip-range fd18:64::1:0/112 --gateway {SITE_ROUTER6} lan"
).split()
_LIFETIMES = re.compile(r"(valid_lft|preferred_lft|expires) \d+sec")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running(tmp_path_factory.mktemp("disk"), 3, site=True) as fleet:
        yield fleet


@pytest.fixture
def site(hosts: Fleet) -> Iterator[Fleet]:
    yield hosts
    cleared(hosts)


@pytest.fixture
def lan(site: Fleet) -> Fleet:
    site.flota("n1", *CREATE)
    return site


def cleared(fleet: Fleet) -> None:
    """No container, no network."""
    fleet.wait_ready(3)
    for one in fleet.json("ps", "-a"):
        fleet.attempt("n1", "rm", "-f", one["instance"]["id"])
    for network in fleet.json("network", "ls"):
        if not network["network"].get("predefined"):
            words = ("network", "rm", network["network"]["spec"]["name"])
            wait_until(lambda w=words: fleet.attempt("n1", *w).returncode == 0, deadline=20, what=words[-1])


def container(fleet: Fleet, name: str, host: str, network: str = "lan") -> tuple[str, str, str]:
    """Its network namespace, IPv4 and IPv6 address. A host that came and went is let settle."""
    words = ("run", "-d", "--name", name, "--network", network, "--node", host, IMAGE, "sleep", "10000")
    done = wait_until(
        lambda: d if b"settling" not in (d := fleet.attempt("n1", *words)).stderr else None,
        deadline=60,
        pause=0.5,
        what=f"{host} takes new work",
    )
    assert done.returncode == 0, done.stderr
    status = fleet.json("inspect", name)[0]["status"]
    (foot,) = status["endpoints"]
    return f"/proc/{local_pid(fleet, host, status['pid'])}/ns/net", foot["ipv4"], foot["ipv6"]


def listing(fleet: Fleet, host: str, link: str = "eth1") -> str:
    """All that a host has on a link."""
    words = f"ip -d address show dev {link} | tail -n +2; ip neigh show nud permanent dev {link}"
    words += f"; for f in -4 -6; do ip -d $f route show table all dev {link}; done"
    text = re.sub(
        r"\n.*(veth|bridge|promiscuity|alias).*", "", "\n" + on_host(fleet, host, "sh", "-c", words)
    )
    return _LIFETIMES.sub(r"\1 N", text).replace(link, "LINK")


def master(fleet: Fleet, host: str, link: str = "eth1") -> str:
    found = re.search(r" master (\S+)", on_host(fleet, host, "ip", "-o", "link", "show", "dev", link))
    return found[1] if found else ""


def pings(target: str) -> bool:
    """From a machine of the site's that is in no fleet."""
    return answered(STRANGER, target)


def answered(namespace: str, target: str) -> bool:
    ping = ["busybox", "ping6" if ":" in target else "ping", "-c1", "-W2", target]
    return run_in(namespace, ping, check=False, timeout=10).returncode == 0


def reaches(namespace: str, target: str) -> list[str]:
    """What does not pass from there to a server."""
    failed = [kind for kind in ("tcp", "udp") if answers(namespace, kind, [target])[0][0] != "here"]
    if not answered(namespace, target):
        failed.append("icmp")
    whole = f"{len(BLOB)} {hashlib.sha256(BLOB).hexdigest()}"
    if run_in(namespace, ["python3", "-c", TAKER, target], check=True, timeout=20).stdout.strip() != whole:
        failed.append("a mebibyte")
    return failed


def test_all_on_the_link_reach_each_other_and_get_their_link_back(site: Fleet) -> None:
    """Containers of one host and of others, the hosts themselves, a stranger; then the network goes."""
    for host in HOSTS:
        on_host(site, host, "ip", "route", "add", "203.0.113.0/24", "via", SITE_ROUTER, "metric", "77")
    before = {host: listing(site, host) for host in HOSTS}
    site.flota("n1", *CREATE)
    own = {host: f"/proc/{site.rig._pid(host)}/ns/net" for host in HOSTS}
    with ExitStack() as stack:
        client = container(site, "client", "n1")[0]
        ends = {
            "same host": container(site, "beside", "n1"),
            "other host": container(site, "beyond", "n2"),
            "third host": container(site, "third", "n3"),
            "its own host": (own["n1"], *site_addresses_of("n1")),
            "another host itself": (own["n2"], *site_addresses_of("n2")),
            "a stranger": (STRANGER, SITE_ROUTER, SITE_ROUTER6),
        }
        for namespace, *_ in ends.values():
            stack.callback(server(namespace, "here").close)
            stack.callback(Talker(namespace, GIVER).close)
        failed = {
            f"container → {end}, {target}": lost
            for end, (_, *targets) in ends.items()
            for target in targets
            if (lost := reaches(client, target))
        }
        _, *beside = ends["same host"]
        for name, namespace in (("its host", own["n1"]), ("n3", own["n3"]), ("a stranger", STRANGER)):
            for target in beside:
                if lost := reaches(namespace, target):
                    failed[f"{name} → container, {target}"] = lost
        assert failed == {}
    for host in HOSTS:
        assert master(site, host).startswith("fln")
        assert listing(site, host, master(site, host)) == before[host]
    assert site.flota("n1", "exec", "client", "nslookup", "beyond").count(ends["other host"][1])
    cleared(site)
    for host in HOSTS:
        wait_until(lambda h=host: not master(site, h), deadline=20, what=f"{host} has its link back")
        wait_until(lambda h=host: listing(site, h) == before[h], deadline=10, what="all of it")
        wait_until(lambda h=host: "fln" not in on_host(site, h, "ip", "link"), deadline=10, what="no bridge")


@pytest.mark.slow
def test_an_agent_that_starts_again_finds_its_link_and_a_boot_moves_it_again(lan: Fleet) -> None:
    namespace, ipv4, _ = container(lan, "server", "n2")
    bridge = master(lan, "n2")
    os.kill(lan.pid("n2", "agent"), signal.SIGKILL)
    assert pings(ipv4)
    changed = on_host(lan, "n2", "ip", "-o", "link", "show", "dev", bridge)
    lan.flota("n2", "agent", "--detach")
    lan.wait_ready(3)
    assert on_host(lan, "n2", "ip", "-o", "link", "show", "dev", bridge) == changed
    assert pings(ipv4)
    lan.rig.crash("n2")
    lan.rig.boot("n2")
    assert not master(lan, "n2")
    lan.flota("n2", "agent", "--detach")
    wait_until(lambda: master(lan, "n2") == bridge, deadline=20, what="the link is a port again")
    assert namespace


def test_what_others_undo_is_done_again_within_a_second(lan: Fleet) -> None:
    _, ipv4, _ = container(lan, "server", "n3")
    bridge = master(lan, "n3")
    for act in ("ip link set eth1 nomaster", f"ip link del {bridge}"):
        on_host(lan, "n3", "sh", "-c", act)
        wait_until(lambda: master(lan, "n3") == bridge, deadline=3, what=f"repaired after {act}")
        for target in (ipv4, site_addresses_of("n3")[0]):
            wait_until(lambda t=target: pings(t), deadline=5, what=f"{target} after {act}")


@pytest.mark.slow
def test_a_host_that_loses_its_gateway_sets_itself_back_and_says_so(lan: Fleet) -> None:
    """A switch that shuts a port on which it sees a bridge; asked again by the doctor once it is open."""
    wait_until(lambda: not master(lan, "n3"), deadline=20, what="n3 has its link back")
    on_host(lan, "n3", "ip", "route", "add", "default", "via", SITE_ROUTER, "metric", "900")
    on_host(lan, "n3", "nft", "add table bridge strange")
    on_host(lan, "n3", "nft", "add chain bridge strange in { type filter hook prerouting priority 0; }")
    on_host(lan, "n3", "nft", 'add rule bridge strange in iifname "eth1" arp operation reply drop')
    before = listing(lan, "n3")
    try:
        done = lan.attempt(
            "n1", "run", "-d", "--name", "lost", "--network", "lan", "--node", "n3", IMAGE, "sleep", "9"
        )
        said = (done.stdout + done.stderr).decode()
        told = wait_until(
            lambda: w if "did not answer" in (w := lan.flota("n1", "node", "inspect", "n3")) else "",
            deadline=25,
            what=f"n3 says why; run said {said}",
        )
        assert f"the gateway {SITE_ROUTER} did not answer within 10 s; it was set back" in told
        assert listing(lan, "n3") == before and not master(lan, "n3")
        on_host(lan, "n3", "nft", "delete table bridge strange")
        assert not master(lan, "n3")
        lan.flota("n1", "network", "doctor", timeout=60)
        assert master(lan, "n3").startswith("fln")
    finally:
        lan.rig.exec("n3", ["nft", "delete table bridge strange"], check=False)
        lan.rig.exec("n3", ["ip", "route", "del", "default", "metric", "900"], check=False)


@pytest.mark.slow
def test_the_link_that_hosts_live_by_moves_under_their_feet(site: Fleet) -> None:
    """Sessions, tunnels and the fleet's other networks go on, with the host's address on the bridge."""
    before = {host: listing(site, host, "eth0") for host in HOSTS}
    site.flota("n1", "network", "create", "over")
    far = container(site, "far", "n3", "over")[1]
    near = container(site, "near", "n2", "over")[0]
    epochs = [n["host"]["state"] for n in site.json("node", "ls")]
    words = "network create --driver nic --opt parent=eth0 --subnet 198.18.0.0/24 --ip-range 198.18.0.128/25"
    site.flota("n1", *words.split(), "--gateway", OUTSIDE_ADDRESS, "main")
    for host in HOSTS:
        address = container(site, f"on-{host}", host, "main")[1]
        assert pings(address), host
        assert master(site, host, "eth0").startswith("fln")
        assert answered(near, far)
    assert [n["host"]["state"] for n in site.json("node", "ls")] == epochs
    site.flota("n1", "network", "doctor", timeout=60)
    cleared(site)
    for host in HOSTS:
        wait_until(
            lambda h=host: listing(site, h, "eth0") == before[h], deadline=10, what=f"{host} is as before"
        )


def test_a_host_without_the_link_is_not_chosen(site: Fleet) -> None:
    words = [w if w != "parent=eth1" else "parent=eth7" for w in CREATE]
    site.flota("n1", *words)
    done = site.attempt("n1", "run", "-d", "--name", "none", "--network", "lan", IMAGE, "sleep", "9")
    assert done.returncode and b"3 without link eth7" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("driver", "host"), [("macvlan", "n3"), pytest.param("nic", "n1", marks=pytest.mark.slow)]
)
def test_addresses_come_from_the_sites_dhcp_server_and_stay(
    site: Fleet, tmp_path: Path, driver: str, host: str
) -> None:
    words = f"network create --driver {driver} --ipam-driver dhcp --opt parent=eth1 --subnet 198.18.64.0/24"
    site.flota("n1", *words.split(), "--gateway", SITE_ROUTER, "--subnet", "fd18:64::/64", "leased")
    done = site.attempt("n1", "run", "-d", "--name", "early", "--network", "leased", "--ip",
                        "198.18.64.99", IMAGE, "sleep", "9")  # fmt: skip
    assert done.returncode and b"DHCP server's to give" in done.stderr
    with serving_dhcp(f"{RIG}-sw", "br1", "198.18.64.100", "198.18.64.120", tmp_path) as leases:
        container(site, "c", host, "leased")
        (foot,) = site.json("inspect", "c")[0]["status"]["endpoints"]
        lease = f"{foot['mac']} {foot['ipv4']} c"
        wait_until(lambda: lease in leases.read_text(), deadline=5, what="the lease in the server's file")
        for target in (foot["ipv4"], foot["ipv6"]):
            wait_until(lambda t=target: pings(t), deadline=5, what=target)
        site.flota("n1", "restart", "-t", "1", "c")
        again = wait_until(lambda: site.json("inspect", "c")[0]["status"]["endpoints"], deadline=20)
        assert again[0]["ipv4"] == foot["ipv4"]
        wait_until(lambda: pings(foot["ipv4"]), deadline=10, what="it is back")
        os.kill(site.pid(host, "agent"), signal.SIGKILL)
        assert pings(foot["ipv4"])
        site.flota(host, "agent", "--detach")
        site.wait_ready(3)
    (tmp_path / "leases").unlink()
    with serving_dhcp(f"{RIG}-sw", "br1", "198.18.64.200", "198.18.64.220", tmp_path):
        clients = on_host(site, host, "pgrep", "-f", "[u]dhcpc -f -i eth0").split()
        on_host(site, host, "kill", "-USR1", *clients)
        moved = wait_until(
            lambda: a if (a := _ipv4(site, "c")).startswith("198.18.64.2") else "",
            deadline=25,
            what="the address that another server gives is told",
        )
        assert pings(moved)
    site.flota("n1", "rm", "-f", "c")
    asking = "pgrep -f '[u]dhcpc -f' || true"
    wait_until(lambda: on_host(site, host, "sh", "-c", asking) == "", deadline=5, what="nobody asks any more")


def _ipv4(fleet: Fleet, name: str) -> str:
    found: str = fleet.json("inspect", name)[0]["status"]["endpoints"][0]["ipv4"]
    return found
