"""Hosts on one link, each a namespace with a real NetReconciler, and a switch that is the outside too."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from model.ids import HostId, InstanceId, NetworkId
from model.netoptions import SITE_DRIVERS
from model.spec import NetworkSpec, Subnet
from model.status import BoundPort, Nic
from model.tunnels import KeyPhase, TunnelEnd
from model.view import NetworkPeer, NetworkView, Peer
from net.host import INGRESS, EndpointRequest, NetworkPlan, PublishRequest, predefined_bridge
from net.kernel import netns
from net.loadbalance import VirtualService
from net.state import LocalEnd
from net.watch import COMPARE
from net.wireguard import keys
from tests.support import forkserver
from tests.support.hostprocess import HostProcess, run_in
from tests.support.waiting import side_by_side, wait_until

OUTSIDE = "198.18.7.1"
MTU = 1500


def ip(*words: str, lines: Iterable[str] = ()) -> None:
    """With `lines`, each a command for the same (`-batch`)."""
    batch = ("-batch", "-") if lines else ()
    subprocess.run(["ip", *words, *batch], check=True, capture_output=True, input="\n".join(lines), text=True)


def host_id(number: int) -> HostId:
    return HostId(f"{number:x}" * 64)


def address(number: int) -> str:
    return f"198.18.7.{10 + number}"


ENTRIES = 9
"""The number of the ingress network."""


def network_id(number: int) -> NetworkId:
    return NetworkId(INGRESS if number == ENTRIES else f"{number:02x}" * 32)


def overlay(
    name: str, number: int, *, ipv6: bool = False, driver: str = "overlay", **options: str
) -> NetworkSpec:
    subnets = [Subnet(cidr=f"10.{128 + number}.0.0/16")]
    if ipv6:
        subnets.append(Subnet(cidr=f"fd00:{number:x}::/64"))
    return NetworkSpec(name=name, driver=driver, subnets=tuple(subnets), options=options)


class NetHosts:
    """`hosts[1]` … ; networks are numbered by whoever makes them, containers by (host, index)."""

    def __init__(self, count: int, name: str, *, compare: float = COMPARE) -> None:
        self._compare = compare
        self.name = f"{name}{os.getpid() % 100000}"
        self.folder = Path(tempfile.mkdtemp(prefix="flota-net-"))
        self.hosts: dict[int, HostProcess] = {}
        self.networks: dict[int, dict[int, NetworkSpec]] = {n: {} for n in range(1, count + 1)}
        self.services: dict[str, VirtualService] = {}
        self.ends: dict[tuple[int, int], tuple[LocalEnd, ...]] = {}
        """By (host, network): see `key`."""
        self.phases: dict[int, KeyPhase] = {}
        self.addresses: dict[int, tuple[str, ...]] = {}
        """All of a host's own, where it matters."""
        self.singles: dict[int, tuple[str, ...]] = {}
        """Fixed addresses, by host, on whatever network they lie in."""
        self.moved: dict[int, str] = {}
        """Underlay addresses of hosts that have others than `address` says."""
        ip(lines=[f"netns add {self.switch}", *(f"netns add {self.name}h{n}" for n in self.networks)])
        bridge = ("link add br0 type bridge", "link set br0 up", f"address add {OUTSIDE}/24 dev br0")
        ip("-n", self.switch, lines=("link set lo up", *bridge))
        forwarding = Path("/proc/sys/net/ipv4/ip_forward")  # a new namespace has this machine's
        netns.inside(f"/run/netns/{self.switch}", lambda: forwarding.write_text("0"))
        for number in self.networks:
            self._host(number)

    @property
    def switch(self) -> str:
        return f"{self.name}sw"

    def _host(self, number: int) -> None:
        name, port = f"{self.name}h{number}", f"p{number}"
        port_lines = (
            f"link add {port} type veth peer name eth0 netns {name}",
            f"link set {port} master br0 up",
        )
        ip("-n", self.switch, lines=port_lines)
        detection = Path("/proc/sys/net/ipv6/conf/eth0/accept_dad")
        netns.inside(f"/run/netns/{name}", lambda: detection.write_text("0"))  # peers use its address at once
        own_lines = (
            f"address add {address(number)}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route add default via {OUTSIDE}",
        )
        ip("-n", name, lines=own_lines)
        folder = self.folder / f"h{number}"
        folder.mkdir()
        self.hosts[number] = HostProcess(name, folder, compare=self._compare)
        self.hosts[number].sysfs.mkdir()
        self.hosts[number].run("mount", "-t", "sysfs", "sysfs", str(self.hosts[number].sysfs))
        self.hosts[number].start()

    def plan(self, number: int) -> NetworkPlan:
        views: dict[str, NetworkView] = {"bridge": _local(NetworkId("bridge"), predefined_bridge())}
        for ident, spec in self.networks[number].items():
            views[network_id(ident)] = self._view(number, ident, spec)
        peers = {
            host_id(n): Peer(
                host=host_id(n),
                name=f"h{n}",
                address=self.underlay(n),
                addresses=self.addresses.get(n, ()),
                link_local=self._link_local(n),
            )
            for n in self.hosts
            if n != number
        }
        return NetworkPlan(
            host=host_id(number),
            address=self.underlay(number),
            mtu=MTU,
            link="eth0",
            onlink=(str(ipaddress.ip_network(f"{self.underlay(number)}/24", strict=False)),),
            vxlan_port=4789,
            networks=views,
            peers=peers,
            ends={network_id(n): ends for (host, n), ends in self.ends.items() if host == number},
            vip_ranges={
                network_id(n): vip_ranges(n)
                for n, spec in self.networks[number].items()
                if n != ENTRIES and spec.driver not in SITE_DRIVERS
            },
            services=self.services,
            nics=(Nic(name="eth0", mtu=MTU),),
        )

    def underlay(self, number: int) -> str:
        return self.moved.get(number, address(number))

    def _link_local(self, number: int) -> str:
        """Of eth0, as the kernel makes it (RFC 4291, appendix A)."""

        def made() -> str:
            at = f"/run/netns/{self.hosts[number].netns}"
            lines = netns.inside(at, Path("/proc/thread-self/net/if_inet6").read_text).splitlines()
            return next((line.split()[0] for line in lines if line.endswith(" eth0")), "")

        return str(ipaddress.IPv6Address(int(wait_until(made, deadline=5, what="eth0's own address"), 16)))

    def move(self, number: int, new: str) -> None:
        """The host has this address from now on, on a subnet behind the switch if it is another."""
        old, self.moved[number] = self.underlay(number), new
        gate = new.rpartition(".")[0] + ".1"
        ip("-n", self.switch, "address", "replace", f"{gate}/24", "dev", "br0")
        for words in (
            ("address", "del", f"{old}/24", "dev", "eth0"),
            ("address", "add", f"{new}/24", "dev", "eth0"),
            ("route", "replace", "default", "via", gate),
        ):
            self.hosts[number].run("ip", *words)
        self.outside("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        for other in self.hosts:
            self.apply(other)

    def _view(self, number: int, ident: int, spec: NetworkSpec) -> NetworkView:
        if spec.driver == "bridge":
            return _local(network_id(ident), spec)
        members = [n for n in self.hosts if ident in self.networks[n] and n != number]
        return NetworkView(
            id=network_id(ident),
            spec=spec,
            vni=4096 + ident,
            blocks=blocks(spec, number),
            peers=tuple(
                NetworkPeer(
                    host=host_id(n),
                    blocks=(*blocks(spec, n), *self.singles.get(n, ())),
                    number=n if ident == ENTRIES else 0,
                    ends=tuple(
                        TunnelEnd(generation=end.generation, key=end.key, port=end.port)
                        for end in self.ends.get((n, ident), ())
                    ),
                )
                for n in members
            ),
            parent=spec.options.get("parent", "") if spec.driver in SITE_DRIVERS else "",
            keys=self.phases.get(ident, KeyPhase()),
            singles=self.singles.get(number, ()),
        )

    def key(self, number: int, network: int, generation: int = 1) -> LocalEnd:
        """Let the host have a key of an encrypted network, which its peers know at their next plan."""
        file = self.folder / f"key-{number}-{network}-{generation}"
        end = LocalEnd(
            generation=generation,
            key=keys.make(file),
            port=51820 + 2 * network + generation,
            key_file=str(file),
        )
        self.ends[number, network] = (*self.ends.get((number, network), ()), end)
        return end

    def carry(self, wanted: Mapping[int, NetworkSpec]) -> None:
        """All hosts carry these networks."""
        for number in self.networks:
            self.networks[number] = dict(wanted)
        side_by_side(self.apply, ((number,) for number in self.hosts))

    def apply(self, number: int) -> None:
        self.hosts[number].call("apply", self.plan(number))

    def container(self, number: int, index: int, *networks: int | str) -> InstanceId:
        """A namespace on that host with a foot on each network; its address ends in 10 + index."""
        instance = InstanceId(f"{number:x}{index:x}" * 32)
        self.hosts[number].call("open_namespace", instance)
        for order, network in enumerate(networks):
            self.hosts[number].call("attach", self.foot(number, index, network, order))
        return instance

    def foot(self, number: int, index: int, network: int | str, order: int = 0) -> EndpointRequest:
        spec = predefined_bridge() if isinstance(network, str) else self.networks[number][network]
        return EndpointRequest(
            instance=InstanceId(f"{number:x}{index:x}" * 32),
            network=network if isinstance(network, str) else network_id(network),
            ifname=f"eth{order}",
            ipv4=inner4(spec, number, index),
            ipv6=inner6(spec, number, index),
            default_route=order == 0,
            default_route6=order == 0,
        )

    def publish(
        self, number: int, instance: InstanceId, ipv4: str, *ports: BoundPort, ipv6: str = ""
    ) -> None:
        request = PublishRequest(instance=instance, ipv4=ipv4, ipv6=ipv6, ports=ports)
        self.hosts[number].call("publish", request)

    def serve(self, **services: VirtualService | None) -> None:
        """On all hosts."""
        for key, service in services.items():
            self.services.pop(key, None)
            if service is not None:
                self.services[key] = service
        for host in self.hosts.values():
            host.call("serve", services)

    def outside(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run_in(f"/run/netns/{self.switch}", argv, check=check, timeout=20)

    def python_outside(self, code: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return forkserver.run(f"/run/netns/{self.switch}", code, *words, check=check)

    def close(self) -> None:
        for host in self.hosts.values():
            if not host.running:
                host.start()
            for instance in host.call("namespaces"):
                host.call("drop_namespace", instance)
            host.stop()
            subprocess.run(["umount", str(host.sysfs)], check=True)
        ip(lines=[f"netns del {name}" for name in (self.switch, *(h.netns for h in self.hosts.values()))])
        shutil.rmtree(self.folder)


def vip_ranges(network: int) -> tuple[str, ...]:
    return (f"10.127.{network}.0/24", f"fd7f:{network:x}::/112")


def vip(network: int, index: int) -> VirtualService:
    """A service's addresses, without members."""
    return VirtualService(ipv4=f"10.127.{network}.{index}", ipv6=f"fd7f:{network:x}::{index:x}")


def blocks(spec: NetworkSpec, number: int) -> tuple[str, ...]:
    found = [spec.subnets[0].cidr.replace(".0.0/16", f".{number}.0/24")]
    if len(spec.subnets) > 1:
        found.append(spec.subnets[1].cidr.replace("::/64", f"::{number:x}00/120"))
    return tuple(found)


def inner4(spec: NetworkSpec, number: int, index: int) -> str:
    part = 0 if spec.driver == "bridge" else number
    return spec.subnets[0].cidr.replace(".0.0/16", f".{part}.{10 + index}")


def inner6(spec: NetworkSpec, number: int, index: int) -> str:
    if len(spec.subnets) < 2:
        return ""
    return spec.subnets[1].cidr.replace("::/64", f"::{number:x}{10 + index:02x}")


def _local(ident: NetworkId, spec: NetworkSpec) -> NetworkView:
    return NetworkView(id=ident, spec=spec, vni=0, blocks=tuple(s.cidr for s in spec.subnets))


@contextlib.contextmanager
def net_hosts(count: int, name: str, *, compare: float = COMPARE) -> Iterator[NetHosts]:
    made = NetHosts(count, name, compare=compare)
    try:
        yield made
    finally:
        made.close()
