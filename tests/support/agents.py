"""Agents without hosts: they speak `model.wire` with a controller over channels in memory.

A `FakeAgent` does what it is told at once, unless its script says otherwise. What it has "on its host"
(`FakeHost`) outlives the agent, as containers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import deque
from dataclasses import dataclass, field

import msgspec

from model.codec import encode_wire
from model.directory import Directory
from model.directory import apply as apply_directory
from model.ids import HostId, InstanceId
from model.records import Desired, Instance
from model.status import BoundPort, Endpoint, Health, HostFacts, HostReport, InstanceStatus, Phase
from model.view import View, apply
from model.wire import (
    PROTOCOL,
    Ack,
    AgentMessage,
    Arrived,
    Delta,
    Departing,
    Follows,
    FullView,
    Goodbye,
    Hello,
    Membership,
    NeedView,
    Ping,
    Pong,
    Recall,
    Report,
    Reported,
    Welcome,
    decode_controller,
)
from net.subnets import gateway


class MemoryChannel:
    """One end of a pair. A cut link delivers nothing, and says nothing about it, until it is healed."""

    def __init__(self) -> None:
        self.peer: MemoryChannel = self
        self._inbox: deque[bytes] = deque()
        self._held: deque[bytes] = deque()
        self._bell = asyncio.Event()
        self.closed = False
        self.cut = False

    @classmethod
    def pair(cls) -> tuple[MemoryChannel, MemoryChannel]:
        a, b = cls(), cls()
        a.peer, b.peer = b, a
        return a, b

    async def send(self, frame: bytes) -> None:
        if self.closed:
            raise ConnectionResetError("closed")
        (self._held if self.cut else self.peer._inbox).append(frame)
        self.peer._bell.set()

    async def receive(self) -> bytes | None:
        while not self._inbox:
            if self.closed:
                return None
            self._bell.clear()
            await self._bell.wait()
        return self._inbox.popleft()

    async def close(self) -> None:
        self.closed = True
        self._bell.set()
        if not self.cut:
            self.peer.closed = True
            self.peer._bell.set()

    def sever(self) -> None:
        """Silence, both ways."""
        self.cut = self.peer.cut = True

    def heal(self) -> None:
        """What was held arrives late; an end that was closed meanwhile is seen as closed."""
        for end in (self, self.peer):
            end.cut = False
            end.peer._inbox.extend(end._held)
            end._held.clear()
            end.peer.closed = end.peer.closed or end.closed
            end.peer._bell.set()


@dataclass
class FakeHost:
    """A host and what runs on it. `exits` and `fails` script containers by image name."""

    id: HostId
    facts: HostFacts
    statuses: dict[InstanceId, InstanceStatus] = field(default_factory=dict)
    forgotten: set[InstanceId] = field(default_factory=set)
    epoch: int = 0
    sequence: int = 0
    boot_id: str = "boot"
    exits: dict[str, int] = field(default_factory=dict)
    fails: dict[str, str] = field(default_factory=dict)
    report: HostReport | None = None
    next_address: int = 10
    first_health: Health = "healthy"
    """Of those with a health check, when they start."""
    behind: bool = False
    """It does not say what it follows of the directory."""
    slow: bool = False
    """Nothing starts or stops until it is set back."""
    protocol: int = PROTOCOL
    """That its agent's release speaks."""
    view: View = field(default_factory=View)
    """What it was told last; it outlives the agent, as a journal does."""

    def host_report(self) -> HostReport:
        return self.report or HostReport(host=self.id)


class FakeAgent:
    """One run of a host's agent: a session, from Hello to the end of the channel."""

    def __init__(self, host: FakeHost, channel: MemoryChannel) -> None:
        self.host = host
        self.channel = channel
        self.view = View()
        self.directory: Directory | None = None
        self.departing: set[InstanceId] = set()
        self.arrived: set[InstanceId] = set()
        self.goodbye: Goodbye | None = None
        self.welcomed = asyncio.Event()

    async def run(self) -> None:
        host = self.host
        host.epoch += 1
        host.sequence = 0
        await self.send(
            Hello(
                epoch=host.epoch,
                boot_id=host.boot_id,
                facts=host.facts,
                statuses=tuple(host.statuses.values()),
                report=host.host_report(),
                protocol=host.protocol,
            )
        )
        with contextlib.suppress(ConnectionResetError):
            while (frame := await self.channel.receive()) is not None:
                await self._take(decode_controller(frame))

    async def send(self, message: AgentMessage) -> None:
        await self.channel.send(encode_wire(message))

    async def _take(self, message: object) -> None:
        match message:
            case Welcome(recall=True):
                await self.send(Recall(view=self.host.view, statuses=tuple(self.host.statuses.values())))
            case Welcome(view=view) | FullView(view=view):
                self.view = self.host.view = view
                self.welcomed.set()
                await self.send(Ack(revision=view.revision))
                await self.work()
            case Delta(delta=delta):
                applied = apply(delta, self.view)
                if applied is None:
                    await self.send(NeedView(have=self.view.revision))
                    return
                self.view = self.host.view = applied
                await self.send(Ack(revision=applied.revision))
                await self.work()
            case Membership(delta=delta, whole=whole, serial=serial):
                known = Directory() if whole or self.directory is None else self.directory
                self.directory = apply_directory(delta, known)
                if not self.host.behind:
                    await self.send(Follows(serial=serial))
            case Departing(instances=instances):
                self.departing.update(instances)
            case Arrived(instances=instances):
                self.arrived.update(instances)
            case Ping(serial=serial):
                await self.send(Pong(serial=serial))
            case Reported():
                self.host.forgotten.clear()
            case Goodbye():
                self.goodbye = message

    async def work(self) -> None:
        """Make the host as the View says, and report what changed."""
        if self.host.slow:
            return
        before = dict(self.host.statuses)
        for ident in list(self.host.statuses):
            if ident not in self.view.instances:
                del self.host.statuses[ident]
        for instance in self.view.instances.values():
            self._settle(instance)
        news = [s for i, s in self.host.statuses.items() if before.get(i) != s]
        gone = [i for i in before if i not in self.host.statuses]
        self.host.forgotten.update(gone)
        for ident, instance in self.view.instances.items():
            if instance.desired is Desired.REMOVED and ident not in self.host.statuses:
                self.host.forgotten.add(ident)
        if news or self.host.forgotten:
            await self.report(news)

    async def report(self, statuses: list[InstanceStatus]) -> None:
        self.host.sequence += 1
        await self.send(
            Report(
                sequence=self.host.sequence,
                statuses=tuple(statuses),
                forgotten=tuple(sorted(self.host.forgotten)),
            )
        )

    async def tell_host(self) -> None:
        """The host's slow facts are others."""
        self.host.sequence += 1
        await self.send(Report(sequence=self.host.sequence, report=self.host.host_report()))

    async def exit(self, ident: InstanceId, code: int) -> None:
        """The container ends by itself."""
        self._put(ident, phase=Phase.EXITED, exit_code=code, finished_at=1.0)
        instance = self.view.instances.get(ident)
        if instance is not None and instance.spec.auto_remove:
            last = msgspec.structs.replace(self.host.statuses.pop(ident), phase=Phase.REMOVED)
            self.host.forgotten.add(ident)
            await self.report([last])
            return
        await self.report([self.host.statuses[ident]])

    async def look(self, ident: InstanceId, health: Health) -> None:
        """Its health check has found this out."""
        self._put(ident, health=health)
        await self.report([self.host.statuses[ident]])

    def _put(self, ident: InstanceId, **changes: object) -> None:
        known = self.host.statuses.get(ident, InstanceStatus(instance=ident))
        self.host.statuses[ident] = msgspec.structs.replace(known, **changes)

    def _settle(self, instance: Instance) -> None:
        known = self.host.statuses.get(instance.id)
        match instance.desired:
            case Desired.REMOVED:
                self.host.statuses.pop(instance.id, None)
            case Desired.CREATED:
                if known is None:
                    self._put(instance.id, attempt=instance.attempt, phase=Phase.CREATED)
            case Desired.STOPPED:
                if known is not None and not known.phase.ended:
                    self._put(instance.id, phase=Phase.EXITED, exit_code=143, finished_at=2.0)
            case Desired.RUNNING | Desired.PAUSED:
                fresh = known is None or known.phase is Phase.CREATED or known.attempt < instance.attempt
                if fresh:
                    self._start(instance)
                paused = instance.desired is Desired.PAUSED
                self._rewire(instance)
                if self.host.statuses[instance.id].paused != paused:
                    self._put(instance.id, paused=paused)

    def _start(self, instance: Instance) -> None:
        image = instance.spec.image
        if image in self.host.fails:
            message = self.host.fails[image]
            self._put(instance.id, attempt=instance.attempt, phase=Phase.FAILED, message=message)
        elif image in self.host.exits:
            code = self.host.exits[image]
            self._put(
                instance.id, attempt=instance.attempt, phase=Phase.EXITED, exit_code=code, finished_at=1.0
            )
        else:
            self._put(
                instance.id,
                attempt=instance.attempt,
                phase=Phase.RUNNING,
                exit_code=None,
                health=self.host.first_health if instance.spec.health is not None else "",
                endpoints=tuple(self._endpoints(instance)),
            )

    def _rewire(self, instance: Instance) -> None:
        known = self.host.statuses[instance.id]
        if known.phase is not Phase.RUNNING:
            return
        have = {endpoint.network: endpoint for endpoint in known.endpoints}
        made = {endpoint.network: endpoint for endpoint in self._endpoints(instance)}
        endpoints = tuple(
            msgspec.structs.replace(
                have.get(network, foot), bandwidth_in=foot.bandwidth_in, bandwidth_out=foot.bandwidth_out
            )
            for network, foot in made.items()
        )
        ports = tuple(
            BoundPort(
                target=p.target,
                published=p.published or 40000,
                protocol=p.protocol,
                host_ip=p.host_ip,
                allow=p.allow,
            )
            for p in instance.spec.ports
        )
        self._put(instance.id, endpoints=endpoints, ports=ports)

    def _endpoints(self, instance: Instance) -> list[Endpoint]:
        found = []
        for attachment in instance.attachments:
            network = self.view.networks[attachment.network]
            self.host.next_address += 1
            share = ipaddress.ip_network(network.held[0])
            own = share[self.host.next_address % share.num_addresses]
            if own == gateway(network.spec.subnets[0]):
                own += 1
            address = attachment.ipv4 or str(own)
            found.append(
                Endpoint(
                    network=network.id,
                    network_name=network.spec.name,
                    ifname="eth0",
                    ipv4=address,
                    bandwidth_in=attachment.bandwidth_in,
                    bandwidth_out=attachment.bandwidth_out,
                )
            )
        return found


def make_host(number: int, **facts: object) -> FakeHost:
    base = HostFacts(
        hostname=f"host{number}", address=f"192.0.2.{number}", nano_cpus=4 * 10**9, memory=8 << 30
    )
    return FakeHost(id=HostId(f"{number:064x}"), facts=msgspec.structs.replace(base, **facts))
