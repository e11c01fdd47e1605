"""What an agent's parts share: the seams it drives, its folders, and the View it acts on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.addresses import Addresses
from agent.dialing import Dial, dial
from agent.hostprocesses import HostProcesses
from agent.imageroom import ImageRoom
from agent.logins import AskLogin, no_login
from agent.naming import Names
from agent.oci.facts import HostLimits
from agent.oci.seccomp import SeccompPolicy
from agent.record import Local
from agent.runtime.base import Runtime
from agent.tunnelkeys import PORTS, TunnelKeys
from agent.volumes import Volumes
from agent.wanted import Own, Wanted
from aio.clock import Clock
from aio.sharing import SharedLocks
from image.base import Images
from model.ids import HostId, InstanceId
from model.records import Instance
from model.status import Endpoint, HostFacts
from model.view import View
from net.host import HostNetwork

Introduce = Callable[[Sequence[Endpoint]], Awaitable[None]]


async def nobody_asks(endpoints: Sequence[Endpoint]) -> None:
    """Where there is no resolver."""


@dataclass(slots=True)
class Context:
    """One per agent. `view`, what the fleet told, and `own`, what was made on this host's own socket, are
    replaced whole; `wanted` is both. `records` are the workers' current ones."""

    host: HostId
    facts: HostFacts
    images: Images
    runtime: Runtime
    network: HostNetwork
    volumes: Volumes
    names: Names
    processes: HostProcesses
    clock: Clock
    state: Path
    run: Path
    limits: HostLimits
    seccomp: SeccompPolicy | None
    cgroup_parent: str
    """As it was chosen: a slice's name or a path (`agent.oci.cgroups`)."""
    boot_id: str
    certificate: str = ""
    """That new connections to the controller show, PEM."""
    view: View = field(default_factory=View)
    own: Own = field(default_factory=dict)
    addresses: Addresses = field(default_factory=Addresses)
    records: dict[InstanceId, Local] = field(default_factory=dict)
    builders: dict[InstanceId, tuple[Endpoint, ...]] = field(default_factory=dict)
    """Who holds namespaces and endpoints for steps of builds: no instances, but known."""
    introduce: Introduce = nobody_asks
    """Waits, not for long, until the host's resolver knows endpoints of `builders` that are new."""
    entrances: SharedLocks = field(default_factory=SharedLocks)
    """By instance: shared while a process enters its container, alone while nothing may run there."""
    dial: Dial = dial
    ask_login: AskLogin = no_login
    tunnel_keys: TunnelKeys = field(init=False)
    room: ImageRoom = field(init=False)
    _wanted: Wanted = field(default_factory=Wanted, init=False)

    def __post_init__(self) -> None:
        self.tunnel_keys = TunnelKeys(
            self.state / "wireguard", lambda but: self.network.free_port("udp", "", but=but, within=PORTS)
        )
        self.room = ImageRoom(
            self.images, lambda: self.wanted if self.view.fleet_id else None, self.records.values
        )

    def bundle(self, instance: InstanceId) -> Path:
        """Of its current attempt; on a tmpfs, gone after a reboot as everything in it is."""
        return self.run / "c" / instance

    def folder(self, instance: InstanceId) -> Path:
        """What outlives attempts and boots: the log, the files under /etc."""
        return self.state / "containers" / instance

    def log_path(self, instance: InstanceId) -> Path:
        return self.folder(instance) / "ctr.log"

    @property
    def wanted(self) -> View:
        """All that is to be here; the same object as long as nothing of it is another."""
        return self._wanted.of(self.view, self.own)

    @property
    def wishes(self) -> Mapping[InstanceId, Instance]:
        return self.wanted.instances
