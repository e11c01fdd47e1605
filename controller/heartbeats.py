"""The liveness loop: hears hosts, asks `liveness.assess`, and makes its verdicts durable.

Invariant: it sleeps until the next moment at which a verdict can change, and is woken by what changes one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec.structs import replace

from aio.clock import Clock
from aio.mailbox import Bell
from controller.committer import Committer
from controller.liveness import Assessment, Contact, Policy, Verdict, assess, settling
from controller.plan import Item, Plan, put
from controller.snapshot import Cluster
from model.events import Event
from model.ids import HostId
from model.status import HostState

log = logging.getLogger("flota.controller")
EVENT = {HostState.READY: "ready", HostState.UNKNOWN: "silent", HostState.LOST: "lost"}


class Heartbeats:
    """`due` is asked to ring `wake` at a monotonic time; `lost` is told of each host found lost,
    `settled` when hosts that came and went take work again."""

    def __init__(
        self,
        committer: Committer,
        clock: Clock,
        policy: Policy,
        *,
        due: Callable[[float], None],
        lost: Callable[[HostId], None],
        settled: Callable[[], None],
    ) -> None:
        self._committer = committer
        self._clock = clock
        self._policy = policy
        self._due = due
        self._lost = lost
        self._settled = settled
        self._settling: frozenset[HostId] = frozenset()
        self._began = clock.monotonic()
        self._bell = Bell()
        self.contacts: dict[HostId, Contact] = {}
        self.held = ""
        """Why losses are not declared now, for people."""

    def hello(self, host: HostId, *, was_lost: bool) -> None:
        """A session has begun."""
        now = self._clock.monotonic()
        known = self.contacts.get(host, Contact(seen=now))
        back = now if was_lost else known.back_at
        self.contacts[host] = replace(known, seen=now, connected=True, back_at=back, excused_until=0.0)
        self._bell.ring()

    def pong(self, host: HostId, *, recorded: HostState) -> None:
        known = self.contacts.get(host)
        if known is not None:
            self.contacts[host] = replace(known, seen=self._clock.monotonic())
            if recorded is HostState.UNKNOWN:
                self._bell.ring()

    def excuse(self, host: HostId, seconds: float) -> None:
        """It will be silent for so long at most, while its agent is started again; that is no loss."""
        now = self._clock.monotonic()
        known = self.contacts.get(host, Contact(seen=now))
        self.contacts[host] = replace(known, excused_until=now + seconds)
        self._bell.ring()

    def gone(self, host: HostId) -> None:
        """Its connection ended."""
        known = self.contacts.get(host)
        if known is not None:
            self.contacts[host] = replace(known, connected=False)
            self._bell.ring()

    def forget(self, host: HostId) -> None:
        self.contacts.pop(host, None)

    def settling(self) -> frozenset[HostId]:
        return frozenset(settling(self.contacts, self._policy, self._clock.monotonic()))

    def wake(self) -> None:
        self._bell.ring()

    async def run(self) -> None:
        """For ever; cancel it to stop."""
        while True:
            assessment = await self._judge()
            if assessment.held != self.held:
                self.held = assessment.held
                log.warning("%s", self.held or "hosts are judged again")
            if assessment.next_at is not None:
                self._due(assessment.next_at)
            self._settle()
            await self._bell.wait()

    def _settle(self) -> None:
        until = settling(self.contacts, self._policy, self._clock.monotonic())
        if self._settling - until.keys():
            self._settled()
        self._settling = frozenset(until)
        if until:
            self._due(min(until.values()))

    async def _judge(self) -> Assessment:
        """Assess and commit; the assessment of the snapshot that was written to."""
        made = Assessment()

        def decide(cluster: Cluster) -> Plan:
            nonlocal made
            now = self._clock.monotonic()
            made = assess(cluster.hosts, self.contacts, self._policy, now=now, began=self._began)
            return Plan(
                items=tuple(_item(cluster, verdict) for verdict in made.verdicts),
                events=tuple(_event(cluster, verdict) for verdict in made.verdicts),
            )

        await self._committer.run(decide)
        for verdict in made.verdicts:
            if verdict.state is HostState.LOST:
                self._note_loss(verdict.host)
                self._lost(verdict.host)
        return made

    def _note_loss(self, host: HostId) -> None:
        now = self._clock.monotonic()
        known = self.contacts.get(host, Contact(seen=now - self._policy.lost_after))
        recent = tuple(at for at in known.lost_at if at > now - self._policy.flap_window)
        self.contacts[host] = replace(known, connected=False, lost_at=(*recent, now))


def _item(cluster: Cluster, verdict: Verdict) -> Item:
    host = cluster.hosts[verdict.host]
    changed = replace(host, state=verdict.state, state_reason=verdict.reason)
    return put(changed, f"{host.spec.name} is {verdict.state}" + f": {verdict.reason}" * bool(verdict.reason))


def _event(cluster: Cluster, verdict: Verdict) -> Event:
    name = cluster.host_name(verdict.host)
    attributes = {"reason": verdict.reason} if verdict.reason else {}
    return Event(
        type="node",
        action=EVENT[verdict.state],
        id=verdict.host,
        name=name,
        host=name,
        attributes=attributes,
    )
