"""What hosts report: phases of instances, facts of hosts, volumes and images they hold. Pure.

A report is ordered by (agent epoch, sequence); older ones are dropped. The controller keeps the last
report per instance in memory and never writes desired state from here into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from model.ids import HostId, InstanceId, NetworkId
from model.spec import Protocol, ProxyProtocol, Resources, Struct
from model.tunnels import TunnelReport


class Phase(StrEnum):
    """Life of one attempt of an instance; within an attempt phases only go down this list,
    except running → restarting → running under a restart policy."""

    PENDING = "pending"
    """No host yet; the instance's `reason` says why. Controller only."""
    ASSIGNED = "assigned"
    PULLING = "pulling"
    PREPARING = "preparing"
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    """Exited; its restart policy will start it again after a delay."""
    EXITED = "exited"
    """Ran and ended; `exit_code` is what its process returned, None if that was lost."""
    FAILED = "failed"
    """Could not be made or started; `message` says why."""
    REMOVED = "removed"
    """Nothing of it is left on the host."""
    LOST = "lost"
    """Its host is gone. Controller only."""

    @property
    def ended(self) -> bool:
        return self in _ENDED

    @property
    def live(self) -> bool:
        """A process of it may exist."""
        return self in _LIVE


def start_failure_code(message: str) -> int:
    """Docker's exit code for a start that failed in these words of the runtime: 127 for a program that is not
    there, 126 for one that can't be run, 125 for all else."""
    lowered = message.lower()
    if "not found in $path" in lowered or "no such file or directory" in lowered:
        return 127
    return 126 if "permission denied" in lowered or "is a directory" in lowered else 125


_ENDED = frozenset({Phase.EXITED, Phase.FAILED, Phase.REMOVED, Phase.LOST})
_LIVE = frozenset({Phase.STARTING, Phase.RUNNING, Phase.STOPPING})


class Endpoint(Struct):
    """An instance's foot on a network, as it stands. Addresses without prefix length."""

    network: NetworkId
    network_name: str
    ifname: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    gateway: str = ""
    resolver: str | None = None
    """Where names are asked for: None, at the gateway; empty, nowhere."""
    bandwidth_in: int = 0
    bandwidth_out: int = 0
    """Limits that stand, in bits a second; 0: none."""


class BoundPort(Struct):
    """A published port as it stands on the host: `published` is never 0 here."""

    target: int
    published: int
    protocol: Protocol
    host_ip: str = ""
    allow: tuple[str, ...] = ()
    proxy_protocol: ProxyProtocol = ""


Health = Literal["", "starting", "healthy", "unhealthy"]
"""Empty: nobody looks."""


class InstanceStatus(Struct):
    instance: InstanceId
    attempt: int = 0
    phase: Phase = Phase.ASSIGNED
    paused: bool = False
    pid: int = 0
    exit_code: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    message: str = ""
    """Why it is in this phase, for people."""
    image_id: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[BoundPort, ...] = ()
    volumes: tuple[tuple[str, str], ...] = ()
    """(volume name, target) of every named and anonymous volume in use."""
    wired_for: int = 0
    limits: Resources | None = None
    """What its process's cgroup has been told; None without a process, or from an older agent."""
    limited_for: int = 0
    """Revision of the last wish for which that was changed, or tried to be."""
    """Revision of the last wish for other networks or ports that its host has tried to meet while it ran."""
    health: Health = ""
    health_message: str = ""
    """What the last probe that failed had to say, in one line; empty while it is well."""
    opening: bool = False
    """It has no health check, and no port that it declares takes connections yet."""
    ready_since: float = 0.0
    """By its host's clock; 0 as long as it is not ready, and from hosts that don't say."""

    @property
    def ready(self) -> bool:
        """It can do its work: new connections may be sent to it, unless it is to stop."""
        well = self.health in ("", "healthy") and not self.opening
        return self.phase is Phase.RUNNING and not self.paused and well


class Platform(Struct):
    os: str = "linux"
    arch: str = "amd64"
    """As in OCI: amd64, arm64 …"""
    variant: str = ""


class Nic(Struct):
    """A link of the host's own that could carry networks: Ethernet, nobody's port."""

    name: str
    mtu: int = 1500
    up: bool = True


class HostFacts(Struct):
    """What a host is, measured by its agent at start."""

    hostname: str
    address: str
    """Underlay address: where peers send VXLAN to. IPv4 or IPv6, no prefix."""
    mtu: int = 1500
    """MTU of the link that carries `address`."""
    nano_cpus: int = 0
    memory: int = 0
    platform: Platform = Platform()
    kernel: str = ""
    os_name: str = ""
    cgroup: str = ""
    """v1, v2 or hybrid."""
    cgroup_driver: str = ""
    """Who makes containers' cgroups: `systemd`, or with `cgroupfs` the runtime itself."""
    runtime: str = ""
    storage_driver: str = ""
    storage_reason: str = ""
    """Why that one."""
    version: str = ""
    """flota's."""
    release: str = ""
    """That it runs from; empty: it was not installed by flota."""
    warnings: tuple[str, ...] = ()
    checksums: bool = True
    """Tunnels leave checksums of what they carry to the network card; false where a probe found it to spoil
    them."""
    labels: Mapping[str, str] = {}
    """Labels set on the host itself (`flota agent --label`)."""
    addresses: tuple[str, ...] = ()
    """All of its own, but for those of links of ours and for those that are good on a link only."""
    behind_nat: bool = False
    """Others can't begin to speak with it: its address is good on its own side of a translator only."""
    wireguard: str = ""
    """Who encrypts there: `kernel`, the name of a program, or nobody."""
    links: tuple[str, ...] = ()
    """Ranges on its own links, and those that it reaches by gateways but for the default one; without
    ours."""
    routes: tuple[str, ...] = ()
    nics: tuple[Nic, ...] = ()
    link_kinds: tuple[str, ...] = ()
    """Of macvlan, ipvlan and vlan those that its kernel can make."""
    link: str = ""
    """The one that carries `address`."""
    onlink: tuple[str, ...] = ()
    """Ranges that are reached on that link without a router."""
    link_local: str = ""
    """Its IPv6 address there that is good on the link only (RFC 4291, 2.5.6)."""
    peer_port: int = 0
    """TCP, at `address`, where it gives layers to others; 0: nowhere."""


class HostState(StrEnum):
    """ready: in session. unknown: silent, nothing new goes there. lost: its instances are replaced."""

    READY = "ready"
    UNKNOWN = "unknown"
    LOST = "lost"
    JOINING = "joining"


class VolumeReport(Struct):
    name: str
    created_at: float = 0.0
    labels: Mapping[str, str] = {}
    anonymous: bool = False


class Stranger(Struct):
    """Somebody on a network of the site's who has an address that a container was to get."""

    network: NetworkId
    address: str
    mac: str
    seen_at: float = 0.0


class HostReport(Struct):
    """Slow facts that change while a host runs; sent whole when changed."""

    host: HostId
    volumes: tuple[VolumeReport, ...] = ()
    used_ports: tuple[tuple[str, int], ...] = ()
    """(protocol, port) taken by foreign processes, as far as seen."""
    unpublished: tuple[tuple[str, int], ...] = ()
    """(protocol, port) of services that it should have open and has not: somebody else has them."""
    conditions: tuple[str, ...] = ()
    """What is wrong with the host now, one line each."""
    short: tuple[NetworkId, ...] = ()
    """Networks on which an instance waits for an address, since all in the host's blocks are held or rest."""
    strangers: tuple[Stranger, ...] = ()
    """That keep containers of this host from addresses."""
    vacated: tuple[str, ...] = ()
    """`network/address/mark` of the addresses that are set aside (`NetworkView.set_aside`) and that nobody
    here has."""
    tunnels: Mapping[NetworkId, TunnelReport] = {}
    """Of encrypted networks."""
