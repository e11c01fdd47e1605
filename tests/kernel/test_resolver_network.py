"""Names asked for from inside containers' namespaces, of the resolver beside a real network."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import naming
from model.directory import Member
from model.ids import InstanceId, NetworkId
from model.spec import NetworkSpec, Subnet
from model.status import BoundPort, Endpoint
from model.view import NetworkView
from net import names
from net.names import Asker
from net.resolver.statefile import whole
from net.supervise import drop
from net.supervise.files import SERVED, prepare, write_state
from net.supervise.keep import stop
from tests.support.hostprocess import HostProcess
from tests.support.nethosts import NetHosts, host_id, inner4, inner6, net_hosts, network_id, overlay
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel

ONE, TWO, SHUT = 1, 2, 3
SPECS = {
    ONE: overlay("one", 1, ipv6=True),
    TWO: overlay("two", 2, mode="bridged"),
    SHUT: NetworkSpec(name="shut", driver="bridge", subnets=(Subnet(cidr="10.202.0.0/16"),), internal=True),
}
GATEWAY = {ONE: "10.129.0.1", TWO: "10.130.0.1", SHUT: "10.202.0.1"}


class NamedHost:
    """A host with containers and the resolver's process in its namespace."""

    def __init__(self, hosts: NetHosts, folder: Path) -> None:
        self.hosts, self.host = hosts, hosts.hosts[1]
        self.run = folder
        self.folder = folder / naming.FOLDER
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "resolv.conf").write_text("nameserver 127.0.0.9\n")

    def serve(self, *askers: Asker, members: dict[int, dict[InstanceId, Member]]) -> None:
        networks = {
            NetworkId(network_id(n)): NetworkView(id=network_id(n), spec=spec, vni=n, blocks=())
            for n, spec in SPECS.items()
        }
        zones = {ident: names.zone(view, {}) for ident, view in networks.items()}
        for number, found in members.items():
            zones[network_id(number)] = names.zone(networks[network_id(number)], found)
        state = names.resolver_state(zones, names.clients(askers, networks))
        prepare(str(self.folder), drop.RESOLVER)
        write_state(str(self.folder), whole(state), drop.RESOLVER)

    def start(self) -> None:
        argv = ["nsenter", f"--net=/run/netns/{self.host.netns}", sys.executable, "-m", "net.resolver"]
        argv += [str(self.folder), "--resolv-conf", str(self.run / "resolv.conf")]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, start_new_session=True)
        served = self.folder / SERVED
        wait_until(lambda: served.exists() and served.stat().st_size, deadline=10, what="a resolver")
        assert b"troubles" not in served.read_bytes()

    def stop(self) -> None:
        if self.process is not None:
            asyncio.run(stop(str(self.folder)))
            self.process.wait(5)

    def look_up(self, instance: InstanceId, name: str, server: str, *, kind: str = "a") -> str:
        """What busybox says, both streams."""
        words = ("busybox", "nslookup", f"-type={kind}", name, server)
        done = self.host.inside(instance, *words, check=False, timeout=20)
        return done.stdout + done.stderr


@pytest.fixture
def named(tmp_path: Path) -> Iterator[NamedHost]:
    os.chmod(tmp_path, 0o711)
    with net_hosts(1, "flnm") as hosts:
        hosts.carry(SPECS)
        made = NamedHost(hosts, tmp_path)
        yield made
        made.stop()


def asker(*feet: tuple[int, str]) -> Asker:
    return Asker(
        endpoints=tuple(
            Endpoint(
                network=network_id(n),
                network_name="",
                ifname="",
                ipv4="" if ":" in address else address,
                ipv6=address if ":" in address else "",
            )
            for n, address in feet
        )
    )


def member(name: str, ipv4: str, ipv6: str = "") -> Member:
    return Member(name=name, host=host_id(1), ipv4=ipv4, ipv6=ipv6)


@pytest.mark.parametrize("bridge_nf", ["0", "1"])
def test_containers_find_each_other_by_name_on_their_own_networks(named: NamedHost, bridge_nf: str) -> None:
    named.host.run("sh", "-c", f"echo {bridge_nf} > /proc/sys/net/bridge/bridge-nf-call-iptables")
    hosts = named.hosts
    one, two, shut = (hosts.container(1, n, n) for n in SPECS)
    both = hosts.container(1, 4, ONE, TWO)
    addresses = {n: inner4(SPECS[n], 1, n) for n in SPECS}
    members = {n: {i: member(f"box{n}", addresses[n])} for n, i in ((ONE, one), (TWO, two), (SHUT, shut))}
    feet = [asker((n, address)) for n, address in addresses.items()]
    both_feet = asker((ONE, inner4(SPECS[ONE], 1, 4)), (TWO, inner4(SPECS[TWO], 1, 4)))
    named.serve(*feet, both_feet, members=members)
    named.start()
    for instance, number in ((one, ONE), (two, TWO), (shut, SHUT)):
        for asked in (f"box{number}", f"BOX{number}.{SPECS[number].name}"):
            assert addresses[number] in named.look_up(instance, asked, GATEWAY[number])
        other = ONE if number != ONE else TWO
        assert addresses[other] not in named.look_up(instance, f"box{other}", GATEWAY[number])
    assert addresses[ONE] in named.look_up(both, "box1", GATEWAY[ONE])
    assert addresses[TWO] in named.look_up(both, "box2", GATEWAY[ONE]), (
        "either gateway knows all its networks"
    )
    assert addresses[TWO] in named.look_up(both, "box2", GATEWAY[TWO])


def test_names_by_ipv6_and_to_a_stranger(named: NamedHost) -> None:
    inside, stranger = named.hosts.container(1, 1, ONE), named.hosts.container(1, 2, ONE)
    own4, own6 = inner4(SPECS[ONE], 1, 1), inner6(SPECS[ONE], 1, 1)
    named.serve(asker((ONE, own4), (ONE, own6)), members={ONE: {inside: member("box", own4, own6)}})
    named.start()
    gateway = "fd00:1::1"
    assert own6.lstrip("0") in named.look_up(inside, "box", gateway, kind="aaaa")
    assert "REFUSED" in named.look_up(stranger, "box", GATEWAY[ONE])
    reversed4 = ".".join(reversed(own4.split("."))) + ".in-addr.arpa"
    reverse = named.look_up(inside, reversed4, GATEWAY[ONE], kind="ptr")
    assert "box.one" in reverse


def test_resolver_listens_before_its_bridge_and_after_it_was_made_anew(named: NamedHost) -> None:
    host = named.host
    inside = named.hosts.container(1, 1, ONE)
    own = inner4(SPECS[ONE], 1, 1)
    named.serve(asker((ONE, own)), members={ONE: {inside: member("box", own)}})
    named.start()
    assert own in named.look_up(inside, "box", GATEWAY[ONE])
    links = [
        line.split()[0]
        for line in host.run("ip", "-br", "link", "show", "type", "bridge").stdout.splitlines()
    ]
    for link in links:
        host.run("ip", "link", "del", link)
    wait_until(
        lambda: own in named.look_up(inside, "box", GATEWAY[ONE]), deadline=10, what="names after a repair"
    )


def test_names_are_answered_while_the_agents_network_code_is_dead(named: NamedHost) -> None:
    inside = named.hosts.container(1, 1, ONE)
    own = inner4(SPECS[ONE], 1, 1)
    named.serve(asker((ONE, own)), members={ONE: {inside: member("box", own)}})
    named.start()
    named.host.kill()
    assert own in named.look_up(inside, "box", GATEWAY[ONE])


def test_dns_server_that_publishes_its_port_does_not_take_our_names(named: NamedHost) -> None:
    """A container that publishes 53 on all addresses gets what comes from outside, not the containers'."""
    hosts = named.hosts
    inside, server = hosts.container(1, 1, ONE), hosts.container(1, 2, ONE)
    own = inner4(SPECS[ONE], 1, 1)
    ports = [BoundPort(target=53, published=53, protocol=protocol) for protocol in ("udp", "tcp")]  # type: ignore[arg-type]
    hosts.publish(1, server, inner4(SPECS[ONE], 1, 2), *ports)
    named.serve(asker((ONE, own)), members={ONE: {inside: member("box", own)}})
    named.start()
    assert own in named.look_up(inside, "box", GATEWAY[ONE])
    assert own in ask_by_tcp(named.host, inside, "box", GATEWAY[ONE])


def ask_by_tcp(host: HostProcess, instance: InstanceId, name: str, server: str) -> str:
    code = (
        "import dns.message, dns.query, sys\n"
        f"print(dns.query.tcp(dns.message.make_query({name!r}, 'A'), {server!r}, timeout=5))\n"
    )
    done = host.python_inside(instance, code, check=False)
    return done.stdout + done.stderr


def test_foreign_names_go_by_the_hosts_namespace(named: NamedHost) -> None:
    """Also to a name server on the host's own loopback, where no container could reach it."""
    inside, shut = named.hosts.container(1, 1, ONE), named.hosts.container(1, 2, SHUT)
    own, locked = inner4(SPECS[ONE], 1, 1), inner4(SPECS[SHUT], 1, 2)
    named.serve(asker((ONE, own)), asker((SHUT, locked)), members={})
    code = (
        "import dns.message, dns.rrset, socket\n"
        "s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.9', 53)); print('up', flush=True)\n"
        "while True:\n"
        " d, a = s.recvfrom(4096); q = dns.message.from_wire(d); r = dns.message.make_response(q)\n"
        " r.answer.append(dns.rrset.from_text(q.question[0].name, 60, 'IN', 'A', '192.0.2.53'))\n"
        " s.sendto(r.to_wire(), a)\n"
    )
    argv = ["nsenter", f"--net=/run/netns/{named.host.netns}", sys.executable, "-c", code]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as upstream:
        try:
            assert upstream.stdout is not None and upstream.stdout.readline() == b"up\n"
            named.start()
            assert "192.0.2.53" in named.look_up(inside, "example.com", GATEWAY[ONE])
            assert "NXDOMAIN" in named.look_up(shut, "example.com", GATEWAY[SHUT])
        finally:
            upstream.kill()
