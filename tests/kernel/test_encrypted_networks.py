"""Encrypted overlays between hosts that are namespaces, by wireguard-go: what passes, what is seen on the
link between them, what happens when a device, its process or a peer's key is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from model.ids import InstanceId
from model.tunnels import KeyPhase
from net.kernel import netns
from net.kernel.echo import Echo, ask
from net.naming import bridge_name, wireguard_name
from tests.support.hostprocess import HostProcess
from tests.support.nethosts import NetHosts, address, inner4, inner6, net_hosts, network_id, overlay
from tests.support.pinging import Pinging
from tests.support.sniffing import sniffing
from tests.support.talkers import Talker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel
SECRET = network_id(1)
SPEC = overlay("secret", 1, ipv6=True, encrypted="on")
DEVICE = wireguard_name(SECRET, 1)
PAYLOAD = b"in-plain-sight-0123456789"


class Pair:
    """Two hosts with a container each, on an encrypted network and, both ways, on one that is not."""

    def __init__(self, hosts: NetHosts) -> None:
        self.hosts = hosts
        for number in hosts.hosts:
            hosts.key(number, 1)
        hosts.carry({1: SPEC, 2: overlay("plain", 2)})
        self.containers = {n: hosts.container(n, 1, 1, 2) for n in hosts.hosts}

    def host(self, number: int) -> HostProcess:
        return self.hosts.hosts[number]

    def reaches(self, target: str, *, number: int = 1) -> bool:
        words = ("busybox", "ping6" if ":" in target else "ping", "-c1", "-W1", target)
        return self.host(number).inside(self.containers[number], *words, check=False).returncode == 0

    def process(self, number: int, device: str = DEVICE) -> int:
        """Of wireguard-go; the newest, while one that was ended is on its way."""
        found = self.host(number).run("pgrep", "-f", f"wireguard-go --foreground {device}", check=False)
        netns = os.stat(f"/run/netns/{self.host(number).netns}").st_ino
        return max((int(pid) for pid in found.stdout.split() if _stands_in(pid, netns)), default=0)


def _stands_in(pid: str, netns: int) -> bool:
    """A process that ends meanwhile stands nowhere."""
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/net").st_ino == netns
    return False


@pytest.fixture
def pair() -> Iterator[Pair]:
    with net_hosts(2, "flwg") as hosts:
        yield Pair(hosts)


def send(pair: Pair, target: str) -> None:
    """A datagram and a TCP stream with the payload, from host 1's container."""
    script = (
        "import socket,sys\n"
        f"socket.socket(socket.AF_INET6 if ':' in '{target}' else socket.AF_INET, socket.SOCK_DGRAM)"
        f".sendto({PAYLOAD!r} * 20, ('{target}', 9999))"
    )
    pair.host(1).python_inside(pair.containers[1], script)


def test_encrypted_network_joins_containers_of_all_hosts_and_shows_nothing_of_them(pair: Pair) -> None:
    inner = (inner4(SPEC, 2, 1), inner6(SPEC, 2, 1))
    plain = inner4(overlay("plain", 2), 2, 1)
    with sniffing(pair.host(1).netns, "eth0") as seen:
        assert all(pair.reaches(target) for target in (*inner, plain))
        for target in inner:
            send(pair, target)
        send(pair, plain)
        wait_until(lambda: seen.holds(PAYLOAD), deadline=5, what="the plain network's payload is seen")
        wait_until(lambda: seen.count(udp_port=51823) >= 6, deadline=5, what="encrypted packets are seen")
        shown = seen.packets_with(PAYLOAD)
        assert all(seen.vni(packet) == 4098 for packet in shown), "the encrypted network's payload is seen"


def test_encrypted_networks_containers_get_the_mtu_that_fits_and_no_packet_is_fragmented(pair: Pair) -> None:
    pairs = [(inner4(SPEC, 1, 1), inner4(SPEC, 2, 1)), (inner6(SPEC, 1, 1), inner6(SPEC, 2, 1))]
    namespace = pair.host(1).run_dir / "ns" / pair.containers[1]
    for size, fits in ((1440, True), (1441, False)):
        echoes = [Echo(source=source, target=target, size=size) for source, target in pairs]
        answers = netns.inside(namespace, lambda e=echoes: asyncio.run(ask(e)))  # type: ignore[misc]
        assert [answer.seconds is not None for answer in answers] == [fits, fits]


def test_device_deleted_or_process_killed_is_back_within_a_second_and_nothing_is_sent_in_clear(
    pair: Pair,
) -> None:
    target, host = inner4(SPEC, 2, 1), pair.host(1)
    assert pair.reaches(target)
    killers = (
        lambda: host.run("ip", "link", "del", DEVICE),
        lambda: os.kill(pair.process(1), signal.SIGKILL),
    )
    for kill in killers:
        with sniffing(host.netns, "eth0") as seen:
            kill()
            wait_until(lambda: pair.process(1) != 0 and pair.reaches(target), deadline=3, what="it is back")
            assert not seen.packets_with(PAYLOAD) and seen.count(vxlan=True) == 0
    told: list[str] = []

    def twice() -> bool:
        told.extend(d["action"] for d in host.call("drifts") if d["object"] == f"wireguard {DEVICE}")
        return told.count("was missing, made again") >= 2

    wait_until(twice, deadline=5, what="both repairs are told")


def test_network_without_its_device_is_unreachable_not_in_the_clear(pair: Pair) -> None:
    target, host = inner4(SPEC, 2, 1), pair.host(1)
    host.kill()
    try:
        os.kill(pair.process(1), signal.SIGKILL)
        wait_until(lambda: DEVICE not in host.run("ip", "link").stdout, deadline=3, what="the link is gone")
        route = host.run("ip", "route", "get", target, "mark", "0", check=False)
        assert "No route to host" in route.stderr
        host.run("ip", "route", "replace", f"{target}/32", "via", address(2))  # somebody's idea
        with sniffing(host.netns, "eth0") as seen:
            assert not pair.reaches(target)
            send(pair, target)
            host.run("busybox", "ping", "-c1", "-W1", target, check=False)
            assert not seen.packets_with(PAYLOAD) and seen.count(inner=target) == 0
    finally:
        host.run("ip", "route", "del", f"{target}/32", "via", address(2), check=False)
        host.start()
        pair.hosts.apply(1)
    wait_until(lambda: pair.reaches(target), deadline=3, what="it is back")


def test_tunnels_outlive_whoever_made_them_and_are_adopted(pair: Pair) -> None:
    target, host = inner4(SPEC, 2, 1), pair.host(1)
    before = pair.process(1)
    wait_until(lambda: pair.reaches(target), deadline=3, what="the tunnel")
    host.kill()
    assert pair.reaches(target)
    host.start()
    pair.hosts.apply(1)
    assert host.call("mutations") == 0
    assert pair.process(1) == before and pair.reaches(target)


def test_peer_whose_key_is_unknown_is_unreachable_until_it_tells(pair: Pair) -> None:
    target = inner4(SPEC, 2, 1)
    known = pair.hosts.ends.pop((2, 1))
    pair.hosts.apply(1)
    with sniffing(pair.host(1).netns, "eth0") as seen:
        assert not pair.reaches(target)
        assert seen.count(inner=target) == 0
    pair.hosts.ends[2, 1] = known
    pair.hosts.apply(1)
    assert pair.reaches(target)


def test_peers_changed_by_hand_are_set_back_by_the_next_comparison(pair: Pair) -> None:
    host, target = pair.host(1), inner4(SPEC, 2, 1)
    control = str(host.run_dir / "wireguard" / f"{DEVICE}.sock")
    script = (
        "import socket; s=socket.socket(socket.AF_UNIX); "
        f"s.connect({control!r}); s.sendall(b'set=1\\nreplace_peers=true\\n\\n'); s.recv(99)"
    )
    host.python(script)
    assert not pair.reaches(target)
    host.call("examine")
    assert pair.reaches(target)


def test_plaintext_that_bears_the_networks_addresses_is_dropped_at_the_door(pair: Pair) -> None:
    """From a stranger on the link, who is no peer and sends as one: plain, and by VXLAN with its number."""
    mine, host = inner4(SPEC, 1, 1), pair.host(1)
    before = dropped(host)
    forged = (
        "import socket,struct\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_RAW,socket.IPPROTO_RAW)\n"
        f"src,dst=socket.inet_aton('{inner4(SPEC, 2, 1)}'),socket.inet_aton('{mine}')\n"
        "head=struct.pack('!BBHHHBBH4s4s',0x45,0,32,1,0,64,17,0,src,dst)\n"
        "udp=struct.pack('!HHHH',1,9,12,0)+b'evil'\n"
        f"s.sendto(head+udp,('{mine}',0))\n"
        "u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
        f"u.sendto(struct.pack('!BxxxI',8,4097<<8)+bytes(60),('{address(1)}',4789))\n"
    )
    subprocess.run(
        ["ip", "-n", pair.hosts.switch, "route", "add", f"{mine}/32", "via", address(1)], check=True
    )
    pair.hosts.python_outside(forged)
    wait_until(lambda: dropped(host) >= before + 2, deadline=3, what="both were dropped and counted")


def dropped(host: HostProcess) -> int:
    lines = host.run("nft", "list", "chain", "inet", "flota", "early").stdout.splitlines()
    counts = [line.split("packets ")[1].split()[0] for line in lines if "not encrypted" in line]
    return sum(map(int, counts))


def test_keys_are_changed_under_load_without_losing_a_packet(pair: Pair) -> None:
    """As hosts do it: all get a second device and key, then all send by it, then the first goes."""
    hosts, target = pair.hosts, inner4(SPEC, 2, 1)
    assert pair.reaches(target)
    pinging = Pinging(str(pair.host(1).run_dir / "ns" / pair.containers[1]), target)
    try:
        for generation in (2, 3):
            for number in hosts.hosts:
                hosts.key(number, 1, generation)
            for phase in (
                KeyPhase(oldest=generation - 1, sending=generation - 1, newest=generation),
                KeyPhase(oldest=generation - 1, sending=generation, newest=generation),
                KeyPhase(oldest=generation, sending=generation, newest=generation),
            ):
                hosts.phases[1] = phase
                for number in hosts.hosts:
                    hosts.apply(number)
        assert DEVICE not in pair.host(1).run("ip", "link").stdout
    finally:
        sent, lost = pinging.end()
    assert sent > 50 and lost == 0, f"{lost} of {sent} packets are lost"
    assert pair.process(1, wireguard_name(SECRET, 3)) and not pair.process(1)


def test_udp_port_that_is_taken_is_told_and_leaves_nothing_half_made(pair: Pair) -> None:
    host, target = pair.host(1), inner4(SPEC, 2, 1)
    script = "import socket; s = socket.socket(2, 2); s.bind(('', 51824)); print('up', flush=True); input()"
    wait_until(lambda: pair.reaches(target), deadline=3, what="the tunnel")
    with closing(Talker(f"/run/netns/{host.netns}", script)):
        pair.hosts.key(1, 1, 2)  # port 51824
        pair.hosts.phases[1] = KeyPhase(oldest=1, sending=1, newest=2)
        with pytest.raises(RuntimeError, match="UDP port 51824 is taken"):
            pair.hosts.apply(1)
        assert wireguard_name(SECRET, 2) not in host.run("ip", "link").stdout
        assert pair.reaches(target), "the device that stands goes on"
    pair.hosts.apply(1)
    assert wireguard_name(SECRET, 2) in host.run("ip", "link").stdout


def test_private_keys_are_roots_and_processes_have_one_capability(pair: Pair) -> None:
    pid = pair.process(1)
    status = Path(f"/proc/{pid}/status").read_text()
    assert "CapEff:\t0000000000001000" in status and "CapBnd:\t0000000000001000" in status
    assert "Uid:\t61055" in status and "Seccomp:\t2" in status
    control = pair.host(1).run_dir / "wireguard"
    assert (control.stat().st_mode & 0o777, control.stat().st_uid) == (0o700, 61055)
    key = Path(pair.hosts.ends[1, 1][0].key_file)
    assert (key.stat().st_mode & 0o777, key.stat().st_uid) == (0o600, 0)


def test_network_removed_leaves_no_device_no_process_and_no_socket(pair: Pair) -> None:
    pid, host = pair.process(1), pair.host(1)
    for number, container in pair.containers.items():
        pair.host(number).call("drop_namespace", container)
    pair.hosts.carry({})
    assert not Path(f"/proc/{pid}").exists()
    assert bridge_name(SECRET) not in host.run("ip", "link").stdout
    assert list((host.run_dir / "wireguard").iterdir()) == []
    assert InstanceId(pair.containers[1]) not in host.call("namespaces")
