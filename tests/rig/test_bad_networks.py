"""Bad input about networks, on a real fleet: one clear line, the right exit code, and nothing changed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

import pytest

from bench.http import Api
from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.networkrows import HOST, SERVE
from tests.rig.networktable import fetches
from tests.rig.support import background, settled, wait_replicas
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig

HELD = 9100
"""A port of a foreign program on n1."""
CREATE = ("network", "create", "bad")
RUN = ("run", "-d", "--name", "bad", "--node", "n1")


def subnet(cidr: str, *more: str) -> tuple[str, ...]:
    return (*CREATE, "--subnet", cidr, *more)


def option(text: str, *more: str) -> tuple[str, ...]:
    return (*CREATE, "--opt", text, *more)


def port(*texts: str) -> tuple[str, ...]:
    return (*RUN, *(word for text in texts for word in ("-p", text)), IMAGE, "true")


def on(network: str, *flags: str) -> tuple[str, ...]:
    return (*RUN, "--network", network, *flags, IMAGE, "true")


Row = tuple[str, tuple[str, ...], int, str]
"""Subject, command, exit code, words of the error."""
OVERLAPS: tuple[Row, ...] = (
    ("another network", subnet("10.50.128.0/17"), 1, "overlaps 10.50.0.0/16 of network back"),
    ("around another network", subnet("10.48.0.0/14"), 1, "overlaps"),
    ("the predefined bridge", subnet("172.29.1.0/24"), 1, "overlaps 172.29.0.0/16 of network bridge"),
    ("itself", subnet("10.60.0.0/24", "--subnet", "10.60.0.128/25"), 1, "overlaps"),
    ("a bridge like docker0", subnet("172.31.99.128/25"), 1, "which n1 has a route to"),
    ("a route of a host", subnet("10.77.0.0/16"), 1, "which n1 has a route to"),
    ("around a route of a host", subnet("10.76.0.0/15"), 1, "which n1 has a route to"),
    ("the underlay", subnet("198.18.0.0/16"), 1, "contains the host address|which n1 has a route to"),
    ("beside hosts in the underlay", subnet("198.18.0.128/25"), 1, "which n. has a route to"),
    ("services' addresses", ("VIPS",), 1, "overlaps .* of network back"),
    *(
        (f"reserved {cidr}", subnet(cidr), 1, "is reserved")
        for cidr in ("0.0.0.0/0", "127.0.0.0/8", "127.44.0.0/16", "169.254.0.0/16", "224.0.0.0/4",
                     "240.0.0.0/4", "255.255.255.0/24", "::/0", "fe80::/64", "ff00::/16")
    ),
)  # fmt: skip
FORMS: tuple[Row, ...] = (
    ("/32", subnet("10.61.0.1/32"), 1, "no room for a gateway and a container"),
    ("/128", subnet("fd61::1/128"), 1, "no room for a gateway and a container"),
    ("/33", subnet("10.61.0.0/33"), 1, "invalid subnet"),
    ("/129", subnet("fd61::/129"), 1, "invalid subnet"),
    ("no prefix", subnet("10.61.0.0"), 1, "invalid subnet.*address/prefix|no room"),
    ("host bits", subnet("10.61.0.1/24"), 1, "has host bits set"),
    ("IPv4 in IPv6", subnet("::ffff:10.61.0.0/112"), 1, "is reserved"),
    ("zone id", subnet("fd61::%eth0/64"), 1, "invalid subnet"),
    ("leading zeros", subnet("010.61.0.0/24"), 1, "[Ll]eading zeros"),
    ("a netmask with holes", subnet("10.61.0.0/255.0.255.0"), 1, "invalid subnet"),
    ("empty", subnet(""), 1, "invalid subnet"),
    ("junk", subnet("ten.sixty/16"), 1, "invalid subnet"),
)
GATEWAYS: tuple[Row, ...] = (
    ("gateway outside", subnet("10.61.0.0/24", "--gateway", "10.62.0.1"), 1, "not an address in 10.61"),
    ("gateway is broadcast", subnet("10.61.0.0/24", "--gateway", "10.61.0.255"), 1, "broadcast address"),
    ("gateway is the network", subnet("10.61.0.0/24", "--gateway", "10.61.0.0"), 1, "network or broadcast"),
    ("gateway of the other family", subnet("10.61.0.0/24", "--gateway", "fd61::1"), 1, "not an address in"),
    ("gateway without a subnet", (*CREATE, "--gateway", "10.61.0.1"), 1, "need a --subnet each"),
    ("gateway set aside", subnet("10.61.0.0/24", "--gateway", "10.61.0.9", "--aux-address", "a=10.61.0.9"), 1,
     "10.61.0.9 is set aside"),
    ("aux address elsewhere", subnet("10.61.0.0/24", "--aux-address", "a=10.62.0.9"), 1, "none of the sub"),
    ("range elsewhere", subnet("10.61.0.0/24", "--ip-range", "10.62.0.0/25"), 1, "not a range in"),
)  # fmt: skip
ADDRESSES: tuple[Row, ...] = (
    ("address of another container", on("back", "--ip", "10.50.0.77"), 125, "belongs to other"),
    ("address of the gateway", on("back", "--ip", "10.50.0.1"), 125, "reserved: gateway"),
    ("address of the network", on("back", "--ip", "10.50.0.0"), 125, "reserved: gateway"),
    ("address that is set aside", on("back", "--ip", "10.50.0.9"), 125, "set aside"),
    ("address of another network", on("back", "--ip", "10.51.0.9"), 125, "in no subnet of network back"),
    ("address with leading zeros", on("back", "--ip", "10.50.0.010"), 125, "not an IPv4 address"),
    ("address of another host there", on("back", "--ip", "THERE"), 125, "n2's own in this network"),
    ("IPv6 address on IPv4", on("back", "--ip6", "fd61::9"), 125, "in no subnet"),
    ("MAC of a group", on("back", "--mac-address", "01:00:5e:00:00:01"), 125, "not a unicast MAC"),
    ("a network that is not there", on("nothing"), 125, "no such network"),
    ("an address beside none", on("none", "--ip", "10.50.0.9"), 125, "takes no addresses"),
)
OPTIONS: tuple[Row, ...] = (
    ("VNI 0", option("vni=0"), 1, "not 1 to 16777215"),
    ("VNI 2^24", option("vni=16777216"), 1, "not 1 to 16777215"),
    ("VNI of a network", option("vni=5000"), 1, "in use by network back"),
    ("VNI of a bridge", option("vni=9", "-d", "bridge"), 1, "unknown option"),
    ("MTU 0", option("mtu=0"), 1, "not 576 to 65535"),
    ("MTU 67", option("mtu=67"), 1, "not 576 to 65535"),
    ("MTU 1279 with IPv6", option("mtu=1279", "--ipv6"), 1, "1280 that IPv6 needs"),
    ("MTU 65536", option("mtu=65536"), 1, "not 576 to 65535"),
    ("MTU above the tunnels'", option("mtu=1451"), 1, "tunnels of n. carry 1450"),
    ("MTU with a minus", option("mtu=-1"), 1, "not 576 to 65535"),
    ("MTU in Arabic digits", option("mtu=١٤٠٠"), 1, "not 576 to 65535"),
    ("an unknown option", option("speed=9"), 1, "unknown option"),
    ("an unknown driver", (*CREATE, "-d", "magic"), 1, "unknown network driver"),
    ("a name that is a mode", ("network", "create", "host"), 1, "reserved"),
    ("a name with a slash", ("network", "create", "../x"), 1, "invalid network name"),
    ("a name that is there", ("network", "create", "back"), 1, "exists"),
)
PORTS: tuple[Row, ...] = (
    ("port 0", port("0:80"), 125, "no port or range from 1 to 65535"),
    ("port 65536", port("65536:80"), 125, "no port or range"),
    ("container port 65536", port("80:65536"), 125, "no port or range"),
    ("port with a minus", port("-1:80"), 125, "no port or range"),
    ("port twice", port("8070:80", "8070:81"), 125, "published twice"),
    (
        "port on all addresses and one",
        port("8070:80", "127.0.0.1:8070:81"),
        125,
        "8070/tcp is published twice",
    ),
    ("port of another container", port("8071:80"), 125, "8071/tcp.*(already|in use|taken|published)"),
    ("ranges of different lengths", port("8000-8002:80-81"), 125, "differ|as many|length"),
    ("a range backwards", port("8002-8000:80-82"), 125, "no port or range"),
    ("a protocol that is none", port("80:80/icmp"), 125, "icmp"),
    ("an address that is none", port("010.0.0.1:80:80"), 125, "not an IP address"),
    ("::1", port("[::1]:80:80"), 125, "::1"),
    ("no address", port(":::80"), 125, "colons"),
)
NAMES: tuple[Row, ...] = (
    ("alias with a label of 64", on("back", "--network-alias", "a" * 64), 125, "63"),
    ("alias localhost", on("back", "--network-alias", "localhost"), 125, "localhost"),
    ("alias with a wildcard", on("back", "--network-alias", "*.web"), 125, "invalid name"),
    ("alias beyond ASCII", on("back", "--network-alias", "bücher"), 125, "invalid name"),
    ("alias on the default bridge", (*RUN, "--network-alias", "web", IMAGE, "true"), 125, "has no names"),
    ("search list of 100", (*RUN, *("--dns-search=a.example",) * 100, IMAGE, "true"), 125, "32"),
    ("search domain with a blank", (*RUN, "--dns-search", "a b", IMAGE, "true"), 125, "'a b'"),
    ("search domain with a line end", (*RUN, "--dns-search", "a\nb", IMAGE, "true"), 125, "domain"),
    ("option with a line end", (*RUN, "--dns-option", "x\ny", IMAGE, "true"), 125, "option"),
    ("name server that is a name", (*RUN, "--dns", "dns.example", IMAGE, "true"), 125, "not an IP address"),
    ("host entry with a blank", (*RUN, "--add-host", "a b:10.0.0.1", IMAGE, "true"), 125, "NAME:ADDRESS"),
    ("host entry without an address", (*RUN, "--add-host", "web:nowhere", IMAGE, "true"), 125, "NAME:ADDR"),
)  # fmt: skip
ROWS = {"overlap": OVERLAPS, "form": FORMS, "gateway": GATEWAYS, "address": ADDRESSES, "option": OPTIONS,
        "port": PORTS, "name": NAMES}  # fmt: skip


@pytest.fixture(scope="module")
def town(fleet: Fleet) -> Iterator[Fleet]:
    """With what the rows collide with."""
    for words in ("link add like0 type bridge", "address add 172.31.99.1/24 dev like0", "link set like0 up",
                  "route add 10.77.0.0/16 dev like0"):  # fmt: skip
        fleet.rig.exec("n1", ["ip", *words.split()])
    wait_until(lambda: knows(fleet, "10.77.0.0/16"), deadline=10, what="the host's report of its routes")
    fleet.flota("n1", "network", "create", "--subnet", "10.50.0.0/16", "--aux-address", "printer=10.50.0.9",
                "--opt", "vni=5000", "back")  # fmt: skip
    fleet.flota("n1", "network", "create", "--subnet", "10.51.0.0/24", "-d", "bridge", "local")
    start(fleet, "other", "--node", "n1", "--network", "back", "--ip", "10.50.0.77", "-p", "8071:80")
    start(fleet, "there", "--node", "n2", "--network", "back")
    start(fleet, "plain", "--node", "n1")
    code = f"import socket; s = socket.create_server(('', {HELD})); print('up', flush=True); s.accept()"
    with background(fleet, "n1", sys.executable, "-S", "-c", code) as foreign:
        assert foreign.stdout is not None and foreign.stdout.readline() == b"up\n"
        settled(lambda: seen(fleet), what="what was made")
        yield fleet
        foreign.kill()
        foreign.wait()
    fleet.rig.exec("n1", ["ip", "link", "del", "like0"])
    wait_until(lambda: not knows(fleet, "10.77.0.0/16"), deadline=10, what="no such route told")


def start(fleet: Fleet, name: str, *flags: str) -> None:
    fleet.flota("n1", "run", "-d", "--name", name, *flags, IMAGE, "sleep", "9999")


def knows(fleet: Fleet, route: str) -> bool:
    return route in json.dumps(fleet.json("inspect", "--type", "node", "n1"))


def seen(fleet: Fleet) -> str:
    """All networks and containers, and n1's packet filter, links and routes."""
    api = Api(fleet.socket())
    try:
        recorded = json.dumps([api.call("GET", path) for path in ("/v1/networks", "/v1/instances")])
    finally:
        api.close()
    listing = "nft list ruleset; ip -br link; ip route; ip -6 route"
    return recorded + fleet.rig.exec("n1", ["sh", "-c", listing]).stdout.decode()


def filled(fleet: Fleet, words: tuple[str, ...]) -> list[str]:
    """With what only this fleet knows in the place of words in capitals."""
    if words == ("VIPS",):
        network = fleet.json("inspect", "--type", "network", "back")[0]["network"]
        return list(subnet(network["vip_ranges"][0]))
    if "THERE" in words:
        (info,) = json.loads(fleet.flota("n1", "network", "inspect", "back"))
        share = next(block["cidr"] for block in info["usage"] if block["host"] == "n2")
        return [share.partition("/")[0] if word == "THERE" else word for word in words]
    return list(words)


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [pytest.param(*row[1:], id=f"{kind}: {row[0]}") for kind, rows in ROWS.items() for row in rows],
)
def test_bad_input_is_refused_in_one_line_and_changes_nothing(
    town: Fleet, words: tuple[str, ...], code: int, error: str
) -> None:
    before = seen(town)
    done = town.attempt("n1", *filled(town, words))
    lines = done.stderr.decode().splitlines()
    try:
        assert done.returncode == code, lines
        assert len(lines) == 1 and lines[0].startswith("flota: "), lines
        assert re.search(error, lines[0]), lines
        assert seen(town) == before
    except BaseException:
        town.attempt("n1", "rm", "-f", "bad")
        town.attempt("n1", "network", "rm", "bad")
        raise


@pytest.mark.parametrize("ports", [(f"{HELD}:80",), (f"{HELD}-{HELD}:80",), ("8072:80", f"{HELD}:81")])
def test_port_of_a_foreign_program_fails_the_start_and_nothing_of_it_is_published(
    town: Fleet, ports: tuple[str, ...]
) -> None:
    """The container is there, as docker's would be, to be started once the port is free."""
    before = filter_of(town)
    done = town.attempt("n1", *port(*ports))
    try:
        lines = done.stderr.decode().splitlines()
        assert (done.returncode, len(lines)) == (125, 1), lines
        assert f"port {HELD}/tcp is in use by another program" in lines[0], lines
        assert town.json("inspect", "bad")[0]["status"].get("phase") in ("created", "failed")
    finally:
        town.flota("n1", "rm", "-f", "bad")
    wait_until(lambda: filter_of(town) == before, deadline=5, what="the packet filter as before")


def filter_of(fleet: Fleet) -> list[str]:
    """Words of n1's packet filter; the order of a set's elements is the kernel's."""
    listing = fleet.rig.exec("n1", ["nft", "list", "ruleset"]).stdout.decode()
    return sorted(re.findall(r"[^\s,]+", listing))


def test_ports_that_are_only_unusual_work(town: Fleet) -> None:
    """Privileged; of the range that the kernel takes clients' ports from; on an address that comes later."""
    ports = ("-p", "80:80", "-p", "40000:80", "-p", "192.0.2.7:8073:80")
    town.flota("n1", "run", "-d", "--name", "odd", "--node", "n1", *ports, IMAGE, "sh", "-c", SERVE)
    try:
        wait_until(lambda: fetches(town.rig, "n3", f"http://{HOST}/"), deadline=5, what="the page")
        assert fetches(town.rig, "n3", f"http://{HOST}:40000/")
        town.rig.exec("n3", ["ip", "route", "add", "192.0.2.7", "via", HOST])
        assert not fetches(town.rig, "n3", "http://192.0.2.7:8073/")
        town.rig.exec("n1", ["ip", "address", "add", "192.0.2.7/32", "dev", "eth0"])
        assert fetches(town.rig, "n3", "http://192.0.2.7:8073/")
    finally:
        town.flota("n1", "rm", "-f", "odd")
        town.rig.exec("n1", ["ip", "address", "del", "192.0.2.7/32", "dev", "eth0"], check=False)


def test_vxlan_number_of_a_foreign_device_is_the_reason_and_other_networks_go_on(town: Fleet) -> None:
    taken = f"type vxlan id 6000 dstport 4789 local {HOST}".split()
    town.rig.exec("n1", ["ip", "link", "add", "foreign0", *taken])
    town.flota("n1", "network", "create", "--opt", "vni=6000", "clash")
    try:
        done = town.attempt("n1", *on("clash"))
        assert done.returncode == 125
        assert b"another link has the VXLAN number 6000" in done.stderr, done.stderr
        start(town, "fine", "--node", "n1", "--network", "back")
    finally:
        for name in ("bad", "fine"):
            town.attempt("n1", "rm", "-f", name)
        town.rig.exec("n1", ["ip", "link", "del", "foreign0"])
        wait_until(lambda: not town.attempt("n1", "network", "rm", "clash").returncode, deadline=10)


@pytest.mark.slow
def test_replicas_beyond_the_last_address_say_so_while_the_others_run(town: Fleet) -> None:
    aside = (word for n in (4, 5, 6) for word in ("--aux-address", f"a{n}=10.63.0.{n}"))
    town.flota("n1", "network", "create", "-d", "bridge", "--subnet", "10.63.0.0/29", *aside, "tiny")
    words = ("--replicas", "3", "--network", "tiny", "--constraint", "node.hostname==n1", "--name", "many")
    town.flota("n1", "service", "create", "--detach", *words, IMAGE, "sleep", "9999")

    def waits() -> bool:
        found = town.json("service", "ps", "many")
        running = [r for r in found if r["status"].get("phase") == "running"]
        reasons = [r["instance"]["reason"] for r in found if r["status"].get("phase") == "pending"]
        return len(running) == 2 and any("no address free in network tiny on host n1" in r for r in reasons)

    try:
        wait_until(waits, deadline=15, what="two to run, one to wait")
    finally:
        town.flota("n1", "service", "rm", "many")
        wait_until(lambda: not town.attempt("n1", "network", "rm", "tiny").returncode, deadline=20)


def test_replica_waits_for_an_address_of_its_hosts_network_and_has_it_when_it_is_given_back(
    clean: Fleet,
) -> None:
    """Room for one on each host."""
    clean.flota("n1", "network", "create", "-d", "bridge", "--subnet", "10.219.0.0/30", "tight")
    flags = ("--network", "tight", IMAGE, "sleep", "9999")
    clean.flota("n1", "run", "-d", "--name", "box", "--node", "n1", *flags)
    there = ("--name", "web", "--constraint", "node.name==n1")
    clean.flota("n1", "service", "create", *there, *flags)
    words = "no address free in network tight on host n1 (1 are held)"
    wait_until(lambda: words in clean.flota("n1", "service", "ls"), deadline=15, what="the condition")
    [one] = clean.json("service", "ps", "web")
    assert one["status"].get("phase") == "pending" and words in one["instance"]["reason"]
    refused = clean.attempt("n1", "run", "-d", "--node", "n1", *flags)
    assert refused.returncode == 125 and words in refused.stderr.decode()
    clean.flota("n1", "rm", "-f", "box")
    [two] = wait_replicas(clean, "web", 1, deadline=15)
    assert two["instance"]["id"] == one["instance"]["id"] and not two["status"].get("restarts")
    wait_until(lambda: words not in clean.flota("n1", "service", "ls"), deadline=15, what="no condition")
