"""A kernel brought from what it is to what is wanted: observe → diff → apply, as far as it can be.

Invariants: what the kernel refuses holds up nothing else, and of a link it refused the reason is known; links
of a namespace that was dropped are left to the kernel, which takes them down in its own time.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path

from aio.supervisor import in_thread
from model.errors import CommandFailed
from net import shortcuts
from net.diff import Op, Operation, diff, removes, roamed
from net.drift import held_again
from net.endpoint import InstanceNetwork
from net.host import Drift
from net.hostfirewall import NO_FIREWALL, HostFirewall
from net.kernel.base import Kernel
from net.state import UPPER, Link, NetState, Place, Route, Steering

log = logging.getLogger("flota.net")


class Convergence:
    """Callers see to it that one call runs at a time. `leaving` are links that go by themselves."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._routed: frozenset[Place] = frozenset()
        """Of the routes that stood after the last comparison."""
        self._told: Mapping[tuple[str, str], str] = {}
        """Where tunnels' peers were said to be last, by link and key."""
        self._stands = False
        """Whether the last comparison got all that was wanted."""
        self.leaving: set[str] = set()
        self.spared: Mapping[str, str] = {}
        """Links that must not go though nobody wants them, and why."""
        self.refused: Mapping[str, CommandFailed] = {}
        """Links that could not be made, and why."""
        self.filtered = False
        """Whether the packet filter is as was wanted last."""
        self.firewall = NO_FIREWALL
        """The host's own, as last seen."""
        self.issued = 0
        self._regained: list[Drift] = []

    async def issue(self, operations: Sequence[Operation]) -> None:
        """Raises CommandFailed for the first that the kernel refuses."""
        self.issued += len(operations)
        if operations:
            stood, self.filtered = self.filtered, False
            await self._kernel.apply(operations)
            self.filtered = stood

    async def present(self, instances: Iterable[InstanceNetwork]) -> list[InstanceNetwork]:
        """Those whose namespace there is. One that somebody else let go of is held again first: its container
        lives in it."""
        self._regained += [held_again(path.name) for path in await self._kernel.held_again()]
        has, known = self._kernel.has_namespace, tuple(instances)
        found: list[InstanceNetwork] = await in_thread(lambda: [i for i in known if has(Path(i.namespace))])
        return found

    def regained(self) -> list[Drift]:
        """What was held again since the last call."""
        found, self._regained = self._regained, []
        return found

    async def to(
        self, wanted: Callable[[HostFirewall], NetState], *, thorough: bool = False
    ) -> tuple[Sequence[Operation], CommandFailed | None]:
        """Make it what is wanted beside the host's own firewall; what had to be repaired, and why not all of
        it could be. To follow that firewall is no repair. `thorough` also looks at what it takes a file each
        to see. `wanted` is pure: it and the comparison, which take time with the number of endpoints, run on
        a thread, so that nothing else waits for them."""
        try:
            return await self._brought(wanted, thorough)
        except CommandFailed as error:  # it could not be looked at
            self._stands = False
            return (), error

    async def _brought(
        self, wanted: Callable[[HostFirewall], NetState], thorough: bool
    ) -> tuple[Sequence[Operation], CommandFailed | None]:
        self.filtered = False
        before, self.firewall = self.firewall, await self._kernel.host_firewall()
        want: NetState = await in_thread(wanted, self.firewall)
        operations, failure, self.refused = await self._difference(want), None, {}
        try:
            await self.issue(operations)
            self.filtered = True
        except CommandFailed:
            operations, failure = await self._what_can_be(want)
        if thorough:
            kinds = {name: link.kind for name, link in want.links.items() if link.steered}
            names = await self._kernel.unsteered(kinds)
            again = [Op(verb="change", item=Steering(link=n, kind=kinds[n])) for n in names]
            await self.issue(again)
            operations = (*operations, *again)
        self._routed = frozenset(route.place for route in want.routes)
        if failure is None:
            self._told = {peer.whose: peer.endpoint for peer in want.tunnel_peers}
        self._stands = failure is None
        if before.chains != self.firewall.chains:
            log.info("published ports follow firewalld, whose rules for what comes in are others now")
        if before.alone != self.firewall.alone:
            log.info("packets between hosts take %s", "shortcuts" if self.firewall.alone else "no shortcuts")
        if (before.chains, before.alone) != (self.firewall.chains, self.firewall.alone):
            operations = [operation for operation in operations if isinstance(operation, Op)]
        return operations, failure

    async def step(self, operations: Sequence[Operation]) -> bool:
        """What is known to differ, issued without a look at all there is; false where that can't be: what
        stands is not what was wanted last, or was not as thought."""
        if not self._stands:
            return False
        self._stands = False
        try:
            await self.issue(operations)
        except CommandFailed as error:
            log.warning("comparing everything, since %s", error)
            return False
        routes = [op for op in operations if isinstance(op, Op) and isinstance(op.item, Route)]
        gone = {op.item.place for op in routes if op.verb == "remove" and isinstance(op.item, Route)}
        come = {op.item.place for op in routes if op.verb != "remove" and isinstance(op.item, Route)}
        self._routed = (self._routed - gone) | come
        self._stands = True
        return True

    async def change(
        self,
        operations: Sequence[Operation],
        compare: Callable[[], Awaitable[tuple[Sequence[Operation], CommandFailed | None]]],
        *,
        could: Sequence[Operation] = (),
        needed: bool = False,
    ) -> bool:
        """Issued; whether something was not as remembered. `could`: issued with them if that can be; nothing
        depends on it. `needed`: raises CommandFailed when it can't be even after everything was compared."""
        try:
            await self.issue((*operations, *could))
            return False
        except CommandFailed as error:
            if could:
                log.info("trying without shortcuts, since %s", error)
                await self.change(operations, compare, needed=needed)
                return True
            log.warning("comparing everything, since %s", error)
            if (failure := (await compare())[1]) is not None:
                raise failure from error
        try:
            await self.issue(operations)
        except CommandFailed as again:
            if needed:
                raise
            log.info("the comparison has done it already, or the next one will: %s", again)
        return True

    async def close(self) -> None:
        """No packet takes a shortcut while nobody sees whether anybody else filters what passes."""
        try:
            await self._kernel.apply((shortcuts.REMOVAL,))
        except CommandFailed as error:
            log.warning("packets between hosts may take shortcuts until the agent is back: %s", error)

    async def _difference(self, want: NetState) -> Sequence[Operation]:
        inner = tuple(link for link in want.links.values() if link.foot is not None and link.kind in UPPER)
        have = roamed(want, await self._kernel.observe(want.sysctls, inner), self._told)
        self.leaving &= set(have.links)
        found: Sequence[Operation] = await in_thread(diff, want, have, self._routed)
        return tuple(op for op in found if not self._expected(op))

    async def _what_can_be(self, want: NetState) -> tuple[Sequence[Operation], CommandFailed | None]:
        """One by one; the first refusal."""
        done, refused, failure, filtered = list[Operation](), dict[str, CommandFailed](), None, True
        for operation in await self._difference(want):
            try:
                await self.issue((operation,))
                done.append(operation)
            except CommandFailed as error:
                failure = failure or error
                filtered = filtered and isinstance(operation, Op)
                if isinstance(operation, Op) and isinstance(operation.item, Link):
                    refused[operation.item.name] = error
        self.refused, self.filtered = refused, filtered
        return done, failure

    def _expected(self, operation: Operation) -> bool:
        """The kernel is still taking down an endpoint whose namespace was dropped, or a link is spared."""
        return removes(operation, self.leaving) or removes(operation, self.spared)
