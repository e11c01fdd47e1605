"""Networks whose packets pass the hosts' link as they are: host-gw, and overlays with direct=true.

What passes, with whose addresses and how wide; what does not, from whoever is on the link; services, repairs,
and hosts that move from one subnet to another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from model.ids import InstanceId
from net.naming import bridge_name, vxlan_name
from tests.kernel.test_virtual_services import Town, addresses, names
from tests.support.hostprocess import HostProcess
from tests.support.nethosts import NetHosts, address, inner4, inner6, net_hosts, network_id, overlay
from tests.support.talkers import Talker, answers, server
from tests.support.waiting import side_by_side, wait_until

pytestmark = pytest.mark.kernel
HOST_GW = overlay("one", 1, ipv6=True, driver="host-gw")
DIRECT = overlay("one", 1, ipv6=True, direct="on")
MODES = {"host-gw": HOST_GW, "direct": DIRECT}
WIDTH = {"host-gw": 1500, "direct": 1450}
SEND = """
import socket, sys
for forged in sys.argv[1:]:
    source, target = forged.split(">")
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    udp = bytes((0, 9, 0, 9, 0, 9, 0, 0)) + b"x"
    head = bytes((0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0)) + socket.inet_aton(source)
    s.sendto(head + socket.inet_aton(target) + udp, (target, 0))
"""
PING = """
import asyncio, sys
from net.kernel.echo import Echo, ask
size, targets = int(sys.argv[1]), sys.argv[2:]
echoes = [Echo(source="::" if ":" in t else "0.0.0.0", target=t, size=size) for t in targets]
for target, answer in zip(targets, asyncio.run(ask(echoes))):
    if answer.seconds is not None: print(target)
"""
SEND6 = """
import socket, struct, sys
source, target = (socket.inet_pton(socket.AF_INET6, word) for word in sys.argv[1:3])
udp = struct.pack("!HHHH", 9, 9, 9, 0) + b"x"
words = struct.unpack("!16H", source + target) + struct.unpack("!5H", udp + bytes(1))
total = sum(words) + 17 + len(udp)
while total >> 16: total = (total & 0xffff) + (total >> 16)
udp = udp[:6] + struct.pack("!H", ~total & 0xffff) + b"x"
packet = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + source + target + udp
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD))
s.sendto(packet, ("br0", 0x86DD, 0, 0, bytes.fromhex(sys.argv[3].replace(":", ""))))
"""
LISTEN = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 9)); s.settimeout(0.5)
print("up", flush=True)
for line in sys.stdin:
    try: print(s.recvfrom(99)[1][0], flush=True)
    except OSError: print("nothing", flush=True)
"""
LISTEN6 = LISTEN.replace("AF_INET,", "AF_INET6,").replace(
    "s.bind", "s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1); s.bind"
)


@pytest.fixture
def pair() -> Iterator[NetHosts]:
    with net_hosts(2, "fldr") as hosts:
        yield hosts


def space(hosts: NetHosts, number: int, instance: InstanceId) -> str:
    return str(hosts.hosts[number].run_dir / "ns" / instance)


def pings(host: HostProcess, instance: str, target: str, size: int = 84) -> bool:
    return reached(host, instance, [target], size) == [target]


def reached(host: HostProcess, instance: str, targets: list[str], size: int = 84) -> list[str]:
    """Those that answer packets of so many bytes, which are never fragmented."""
    return host.python_inside(instance, PING, str(size), *targets).stdout.split()


def routes_of(host: HostProcess, link: str) -> list[tuple[str, str]]:
    """Family and destination of each route to a peer's block."""
    found = []
    for family in ("-4", "-6"):
        text = host.run("ip", family, "route", "show", "dev", link, "proto", "247").stdout
        found += [(family, line.split()[0]) for line in text.splitlines() if " via " in line]
    return found


@pytest.mark.parametrize("mode", MODES)
def test_packets_of_a_network_pass_the_link_as_they_are(pair: NetHosts, mode: str) -> None:
    spec = MODES[mode]
    pair.carry({1: spec})
    near, beside, far = pair.container(1, 0, 1), pair.container(1, 1, 1), pair.container(2, 0, 1)
    host, width = pair.hosts[1], WIDTH[mode]
    with ExitStack() as stack:
        for number, instance, name in ((2, far, "far"), (1, beside, "beside")):
            stack.callback(server(space(pair, number, instance), name).close)
        for inner in (inner4, inner6):
            own = inner(spec, 1, 0)
            for target, name in ((inner(spec, 2, 0), "far"), (inner(spec, 1, 1), "beside")):
                for kind in ("tcp", "udp"):
                    heard = answers(space(pair, 1, near), kind, [target])
                    assert heard == [[name, own]], (target, kind, heard)
                assert pings(host, near, target, width) and not pings(host, near, target, width + 1), target
    assert host.run("busybox", "ping", "-c1", "-W1", inner4(spec, 2, 0)).returncode == 0
    known = host.run("cat", "/proc/net/nf_conntrack").stdout
    assert not any(inner(spec, 1, 0) in known for inner in (inner4, inner6)), "no connection is tracked"
    before = host.call("mutations")
    pair.apply(1)
    assert host.call("mutations") == before
    ways = routes_of(host, "eth0")
    assert len(ways) == 2
    for family, destination in ways:
        host.run("ip", family, "route", "del", destination, "dev", "eth0")
        wait_until(lambda: sorted(routes_of(host, "eth0")) == sorted(ways), deadline=1, what=destination)
    assert pings(host, near, inner4(spec, 2, 0)) and pings(host, near, inner6(spec, 2, 0))


@pytest.mark.parametrize("mode", MODES)
def test_service_of_a_direct_network_is_reached_from_everywhere_on_it(mode: str) -> None:
    with net_hosts(2, "flds") as hosts:
        town = Town(hosts)
        try:
            town.carry(one=MODES[mode])
            service = town.service((1, 0), (1, 1), (2, 0))
            hosts.serve(web=service)
            every, here = {"1.0", "1.1", "2.0"}, f"/run/netns/{hosts.hosts[1].netns}"
            own = town.member(1, 5)
            for target, mine in zip(addresses(service), (own.ipv4, own.ipv6), strict=True):
                for kind in ("tcp", "udp"):
                    heard = answers(town.space(1, 5), kind, [target], 6)
                    assert names(heard).keys() == every and {words[1] for words in heard} == {mine}, heard
                    for where in (town.space(1, 0), town.space(2, 5), here):
                        assert names(answers(where, kind, [target], 6)).keys() == every, (where, kind, target)
            assert names(answers(town.space(1, 5), "tcp", [own_server(town)])).keys() == {"2.0"}
        finally:
            town.close()


def own_server(town: Town) -> str:
    """A member asked directly, beside its service."""
    return town.member(2, 0).ipv4


def test_direct_networks_are_apart_on_every_host(pair: NetHosts) -> None:
    specs = {
        1: overlay("one", 1, driver="host-gw"),
        2: overlay("two", 2, driver="host-gw"),
        3: overlay("three", 3, direct="on"),
        4: overlay("four", 4),
        5: overlay("five", 5, driver="host-gw", icc="off"),
    }
    pair.carry(specs)
    host = pair.hosts[1]
    near = {n: pair.container(1, n, n) for n in specs}
    for n in specs:
        pair.container(2, n, n)

    def reached_from(n: int) -> list[str]:
        return reached(host, near[n], [inner4(spec, 2, m) for m, spec in specs.items()])

    for (n,), found in side_by_side(reached_from, ((n,) for n in near)).items():
        assert found == ([inner4(specs[n], 2, n)] if n != 5 else []), n
    for n in specs:
        pair.outside("ip", "route", "add", f"10.{128 + n}.2.0/24", "via", address(2))

    def reached_from_outside(n: int) -> bool:
        ping = ("busybox", "ping", "-c1", "-W1", inner4(specs[n], 2, n))
        return pair.outside(*ping, check=False).returncode == 0

    heard = side_by_side(reached_from_outside, ((n,) for n in specs))
    assert not any(heard.values()), heard


def test_forged_sources_from_the_link_reach_no_container(pair: NetHosts) -> None:
    """Whose block the source would be of decides: peers' own pass (the link can't tell), nobody's don't."""
    specs = {1: HOST_GW, 2: overlay("two", 2, driver="host-gw")}
    pair.carry(specs)
    far = pair.container(2, 0, 1)
    target = inner4(HOST_GW, 2, 0)
    pair.outside("ip", "route", "add", "10.129.2.0/24", "via", address(2))
    with ExitStack() as stack:
        listener = Talker(space(pair, 2, far), LISTEN)
        stack.callback(listener.close)
        for source, heard in (
            ("10.129.1.7", "10.129.1.7"),
            ("10.129.2.9", "nothing"),
            ("10.129.77.9", "nothing"),
            ("10.130.1.7", "nothing"),
            ("203.0.113.9", "nothing"),
        ):
            pair.python_outside(SEND, f"{source}>{target}")
            assert listener.say("?") == heard, source
        listener6 = Talker(space(pair, 2, far), LISTEN6)
        stack.callback(listener6.close)
        shown = pair.hosts[2].run("ip", "-o", "link", "show", "eth0").stdout
        mac = shown.partition("link/ether ")[2].split()[0]
        for source, heard in (
            ("fd00:1::109", "fd00:1::109"),
            ("fd00:1::1", "nothing"),
            ("fd00:1::209", "nothing"),
        ):
            pair.python_outside(SEND6, source, inner6(HOST_GW, 2, 0), mac)
            assert listener6.say("?") == heard, source


def test_direct_overlay_follows_a_host_to_another_subnet_and_back(pair: NetHosts) -> None:
    pair.carry({1: DIRECT})
    near, far = pair.container(1, 0, 1), pair.container(2, 0, 1)
    host, vxlan = pair.hosts[1], vxlan_name(network_id(1))
    for new, link, other in (("198.18.8.12", vxlan, "eth0"), (address(2), "eth0", vxlan)):
        pair.move(2, new)
        assert len(routes_of(host, link)) == 2 and routes_of(host, other) == []
        assert not pair.hosts[1].call("drifts"), "nothing is repaired that was not damaged"
        for target in (inner4(DIRECT, 2, 0), inner6(DIRECT, 2, 0)):
            wait_until(lambda t=target: pings(host, near, t, 1450), deadline=5, what=f"{target} by {link}")
        assert pings(pair.hosts[2], far, inner4(DIRECT, 1, 0))


def test_host_gw_pair_that_shares_no_link_is_told_at_once(pair: NetHosts) -> None:
    pair.carry({1: HOST_GW})
    near, _ = pair.container(1, 0, 1), pair.container(2, 0, 1)
    pair.move(2, "198.18.8.12")
    ((error, seconds),) = answers(space(pair, 1, near), "tcp", [inner4(HOST_GW, 2, 0)])
    assert error == "OSError" and float(seconds) < 1, "no route to host"
    assert routes_of(pair.hosts[1], "eth0") == []
    pair.move(2, address(2))
    wait_until(lambda: pings(pair.hosts[1], near, inner4(HOST_GW, 2, 0)), deadline=5, what="the way back")
    assert bridge_name(network_id(1)) in pair.hosts[1].run("ip", "-o", "link").stdout
