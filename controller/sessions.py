"""The agents' connections: one session per host, Views down, reports up.

Invariants: the first message down is the whole View, each later one the difference to what was sent before,
computed when it is sent (a slow host gets the newest, not a backlog); a report is answered only when what it
asks to write is durable; only an answered ping proves that a host hears us.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

from aio.clock import Clock
from aio.mailbox import Bell
from api.channels import Channel
from controller.listener import Listener
from controller.snapshot import Cluster
from controller.told import Told
from controller.views import view_of
from model.codec import encode_wire
from model.errors import FlotaError, InvalidInput, Unsupported
from model.ids import HostId, InstanceId, NetworkId
from model.view import View, diff
from model.wire import (
    WITH_ARRIVALS,
    WITH_DEPARTURES,
    WITH_DIRECTORY,
    WITH_RECALL,
    Ack,
    Arrived,
    ControllerMessage,
    Delta,
    Departing,
    Follows,
    FullView,
    Goodbye,
    Hello,
    NeedView,
    Ping,
    Pong,
    Recall,
    Report,
    Reported,
    Welcome,
    decode_agent,
    skew,
)

log = logging.getLogger("flota.controller")
HELLO_WITHIN = 10.0
SEND_WITHIN = 10.0
TOO_OLD = "the fleet is being restored from a backup, and this agent can't be asked what runs on its host"


class Session:
    """One agent's connection."""

    def __init__(self, host: HostId, channel: Channel, hello: Hello, heard: float) -> None:
        self.host = host
        self.hello = hello
        self.heard = heard
        """When it last answered, monotonic."""
        self.acked = 0
        """Revision of the last View that the host says is in its journal."""
        self.bell = Bell()
        self._channel = channel
        self._sent = View()
        self._whole = False
        self._seen: View | None = None
        self.told = Told(answering=hello.protocol >= WITH_DEPARTURES)
        self._departing: set[InstanceId] = set()
        self._arrived: set[InstanceId] = set()
        self._serial = 0
        self._goodbye: Goodbye | None = None
        self._asked = False
        """It is to say what it was told last, and is told nothing before."""

    async def send(self, message: ControllerMessage) -> None:
        async with asyncio.timeout(SEND_WITHIN):
            await self._channel.send(encode_wire(message))

    async def receive(self) -> bytes | None:
        return await self._channel.receive()

    async def welcome(self, welcome: Welcome) -> None:
        self._sent, self._asked = welcome.view, welcome.recall
        await self.send(welcome)

    def recalled(self) -> None:
        """It said so: now it may be told all."""
        self._asked = False
        self.send_whole()

    def send_whole(self) -> None:
        self._whole = True
        self.bell.ring()

    def dismiss(self, reason: str, *, retry: bool) -> None:
        """End it from its own writer, so that a peer that does not read delays nobody else."""
        self._goodbye = Goodbye(reason=reason, retry=retry)
        self.bell.ring()

    async def write(self, listener: Listener) -> None:
        """Send what changed whenever it rings, for ever."""
        while True:
            await self.bell.wait()
            if self._goodbye is not None:
                await self.end(self._goodbye.reason, retry=self._goodbye.retry)
                return
            if self._asked or listener.held():
                continue  # whatever ends that rings
            view = self._looked_at(listener.snapshot())
            # Before the View: the last of a service's members on a host should not leave before its successor
            # elsewhere is known there.
            if self.hello.protocol >= WITH_DIRECTORY:
                news = self.told.news(listener.directory(self.host, view))
                if news is not None:
                    await self.send(news)
            delta = diff(self._sent, view)
            if self._whole:
                self._whole, self._sent = False, view
                await self.send(FullView(view=view))
            elif not delta.empty:
                self._sent = view
                await self.send(Delta(delta=delta))
            await self._let_depart()
            await self._let_start()

    def _looked_at(self, cluster: Cluster) -> View:
        """The host's View now. Made anew only for a new snapshot: reports ring as well as records."""
        if self._seen is None or self._seen.revision != cluster.revision:
            self._seen = view_of(cluster, self.host)
        return self._seen

    def avoids(self, instance: InstanceId, networks: Iterable[NetworkId]) -> bool:
        """Whether it surely sends nothing new there; one that can't say is not waited for."""
        return self.hello.protocol < WITH_DEPARTURES or self.told.avoids(instance, networks)

    def departing(self, instance: InstanceId) -> None:
        self._departing.add(instance)
        self.bell.ring()

    async def _let_depart(self) -> None:
        instances, self._departing = tuple(sorted(self._departing)), set()
        if instances and self.hello.protocol >= WITH_DEPARTURES:
            await self.send(Departing(instances=instances))

    def knows(self, instance: InstanceId, addresses: Mapping[NetworkId, tuple[str, str]]) -> bool:
        """Whether its kernel goes by these addresses of it; one that can't say is not waited for."""
        return self.hello.protocol < WITH_ARRIVALS or self.told.knows(instance, addresses)

    def arrived(self, instance: InstanceId) -> None:
        self._arrived.add(instance)
        self.bell.ring()

    async def _let_start(self) -> None:
        instances, self._arrived = tuple(sorted(self._arrived)), set()
        if instances and self.hello.protocol >= WITH_ARRIVALS:
            await self.send(Arrived(instances=instances))

    async def ping(self, clock: Clock, every: float) -> None:
        while True:
            await clock.sleep(every)
            self._serial += 1
            await self.send(Ping(serial=self._serial))

    async def end(self, reason: str, *, retry: bool) -> None:
        """Say goodbye if the other side still listens, and close."""
        with contextlib.suppress(OSError, FlotaError):
            await self.send(Goodbye(reason=reason, retry=retry))
        await self.close()

    async def close(self) -> None:
        with contextlib.suppress(OSError, FlotaError):
            await self._channel.close()


class Sessions:
    """All sessions; `ping_every` seconds between pings, `alive_for` seconds an answer counts as life;
    `registry` is the fleet's."""

    def __init__(
        self, listener: Listener, clock: Clock, *, ping_every: float, alive_for: float, registry: str = ""
    ) -> None:
        self._listener = listener
        self._clock = clock
        self._ping_every = ping_every
        self._alive_for = alive_for
        self._registry = registry
        self._by_host: dict[HostId, Session] = {}
        self._last: dict[HostId, tuple[int, int]] = {}
        """(epoch, sequence) of the last report taken."""
        self._refusals: dict[HostId, str] = {}

    def avoids(self, host: HostId, instance: InstanceId, networks: Iterable[NetworkId]) -> bool:
        """Whether it surely sends nothing new to that instance; true of one that is not in session."""
        session = self._by_host.get(host)
        return session is None or session.avoids(instance, networks)

    def departing(self, host: HostId, instance: InstanceId) -> None:
        session = self._by_host.get(host)
        if session is not None:
            session.departing(instance)

    def knows(
        self, host: HostId, instance: InstanceId, addresses: Mapping[NetworkId, tuple[str, str]]
    ) -> bool:
        """Whether its kernel goes by these addresses; true of one that is not in session."""
        session = self._by_host.get(host)
        return session is None or session.knows(instance, addresses)

    def arrived(self, host: HostId, instance: InstanceId) -> None:
        session = self._by_host.get(host)
        if session is not None:
            session.arrived(instance)

    def connected(self, host: HostId) -> bool:
        return host in self._by_host

    def refused(self, host: HostId) -> str:
        """Why its last Hello was turned away; empty: it is in session, or was never so."""
        return "" if host in self._by_host else self._refusals.get(host, "")

    def hosts(self) -> list[HostId]:
        return sorted(self._by_host)

    def ring(self, hosts: Iterable[HostId] | None) -> None:
        """Their Views may have changed; None: everybody's."""
        for host in list(self._by_host) if hosts is None else hosts:
            session = self._by_host.get(host)
            if session is not None:
                session.bell.ring()

    def dismiss(self, host: HostId, reason: str, *, retry: bool) -> None:
        """End the session of that host, if there is one."""
        session = self._by_host.pop(host, None)
        if session is not None:
            self._listener.parted(host)
            session.dismiss(reason, retry=retry)

    async def serve(
        self,
        host: HostId,
        channel: Channel,
        disowned: Callable[[], str],
        begun: Callable[[], Awaitable[object]],
    ) -> None:
        """Speak with an agent until either side ends. `disowned`: why it is not the host's (any more), asked
        once it has said Hello, which may be a while after it came in; one that isn't shall not come back,
        unless the host may have joined again after the backup that the fleet came out of. `begun`: to be done
        once this session is the host's."""
        hello = await self._hello(channel)
        if hello is None:
            await channel.close()
            return
        session = Session(host, channel, hello, self._clock.monotonic())
        if words := disowned():
            log.warning("host %s: %s", host[:12], words)
            await session.end(words, retry=self._listener.asks(host))
            return
        refusal = self._refused(session)
        if refusal:
            log.warning("host %s: %s", host[:12], refusal)
            self._refusals[host] = refusal
            await session.end(refusal, retry=True)
            return
        self._replace(session)
        try:
            await begun()
            await self._listener.greeted(host, hello)
            await session.welcome(self._welcome(host, hello))
            await self._converse(session)
        except FlotaError as error:
            await session.end(str(error), retry=error.code != "not_found")
        except OSError as error:
            log.info("host %s: connection ended: %s", host[:12], error)
        finally:
            if self._by_host.get(host) is session:
                del self._by_host[host]
                self._listener.parted(host)
            await session.close()

    def _welcome(self, host: HostId, hello: Hello) -> Welcome:
        """Raises Unsupported."""
        asks = self._listener.asks(host)
        if asks and hello.protocol < WITH_RECALL and self._listener.held():
            raise Unsupported(TOO_OLD, hint="Upgrade it")
        return Welcome(
            view=view_of(self._listener.snapshot(), host),
            ping_every=self._ping_every,
            epoch=self._listener.leads(),
            recall=asks and hello.protocol >= WITH_RECALL,
            registry=self._registry,
        )

    async def _hello(self, channel: Channel) -> Hello | None:
        try:
            async with asyncio.timeout(HELLO_WITHIN):
                frame = await channel.receive()
            message = decode_agent(frame) if frame is not None else None
        except (TimeoutError, OSError, InvalidInput) as error:
            log.warning("a session did not begin with Hello: %s", error)
            return None
        return message if isinstance(message, Hello) else None

    def _refused(self, new: Session) -> str:
        """Why this newcomer must wait: an older process, or a second machine with the same certificate."""
        old = self._by_host.get(new.host)
        if words := skew(new.hello.protocol):
            return words
        if old is None or self._clock.monotonic() - old.heard > self._alive_for:
            return ""
        if old.hello.boot_id != new.hello.boot_id:
            return "another machine with this host's certificate is in session"
        if new.hello.epoch < old.hello.epoch:
            return "a newer agent of this host is in session"
        return ""

    def _replace(self, session: Session) -> None:
        old = self._by_host.get(session.host)
        self._by_host[session.host] = session
        self._refusals.pop(session.host, None)
        if old is not None:
            old.dismiss("a newer session of this host has begun", retry=True)

    async def _converse(self, session: Session) -> None:
        """Reader here; writer and pinger beside it. A failing one closes the channel, which ends the reader,
        so that no task's failure has to be caught as a group."""
        failure: FlotaError | OSError | None = None
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(self._or_close(session, session.write(self._listener))),
                group.create_task(self._or_close(session, session.ping(self._clock, self._ping_every))),
            ]
            try:
                await self._read(session)
            except (FlotaError, OSError) as error:
                failure = error  # raised bare below: a group would wrap it
            finally:
                for task in beside:
                    task.cancel()
        if failure is not None:
            raise failure

    @staticmethod
    async def _or_close(session: Session, work: Awaitable[None]) -> None:
        try:
            await work
        except (OSError, FlotaError) as error:
            log.info("host %s: %s", session.host[:12], str(error) or type(error).__name__)
            await session.close()

    async def _read(self, session: Session) -> None:
        session.bell.ring()  # what changed between Hello and Welcome
        while (frame := await session.receive()) is not None:
            if self._by_host.get(session.host) is not session:
                return
            message = decode_agent(frame)
            match message:
                case Pong():
                    session.heard = self._clock.monotonic()
                    self._listener.ponged(session.host)
                case Report():
                    await self._report(session, message)
                case Ack():
                    session.acked = message.revision
                case NeedView():
                    session.send_whole()
                case Follows():
                    session.told.followed(message.serial)
                    self._listener.followed(session.host)
                case Recall():
                    await self._listener.recalled(session.host, message)
                    session.recalled()
                case Hello():
                    raise InvalidInput("a second Hello in one session")

    async def _report(self, session: Session, report: Report) -> None:
        at = (session.hello.epoch, report.sequence)
        last = self._last.get(session.host, (0, 0))
        if at > last or last[0] > session.hello.epoch:
            await self._listener.reported(session.host, report)
            self._last[session.host] = at
        await session.send(Reported(sequence=report.sequence))
