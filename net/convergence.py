"""The kernel made as it should be, once: observe → diff → apply, and what of that was refused.

Invariant: what the kernel refuses holds up nothing else, and of each link it refused the reason is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model.errors import CommandFailed
from net.diff import Op, Operation, diff
from net.kernel.base import Kernel
from net.state import Link, NetState, Steering


class Convergence:
    """Callers see to it that one call runs at a time. `issued` counts operations given to the kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.issued = 0
        self.leaving: set[str] = set()
        """Endpoints' links that the kernel is still taking down, for their namespace was dropped."""
        self.refused: Mapping[str, CommandFailed] = {}
        """Links that could not be made, and why."""
        self._routed: frozenset[str] = frozenset()
        """Destinations of the routes that stood after the last comparison."""

    async def issue(self, operations: Sequence[Operation]) -> None:
        """Raises CommandFailed for the first that is refused."""
        self.issued += len(operations)
        if operations:
            await self._kernel.apply(operations)

    async def converge(
        self, want: NetState, *, thorough: bool = False
    ) -> tuple[Sequence[Operation], CommandFailed | None]:
        """What had to be done, and why not all of it could be. `thorough` also looks at what it takes a file
        each to see."""
        operations, failure, self.refused = await self._difference(want), None, {}
        try:
            await self.issue(operations)
        except CommandFailed:
            operations, failure = await self._what_can_be(want)
        if thorough:
            kinds = {name: link.kind for name, link in want.links.items() if link.steered}
            names = await self._kernel.unsteered(kinds)
            again = [Op(verb="change", item=Steering(link=n, kind=kinds[n])) for n in names]
            await self.issue(again)
            operations = (*operations, *again)
        self._routed = frozenset(route.destination for route in want.routes)
        return operations, failure

    async def _difference(self, want: NetState) -> Sequence[Operation]:
        have = await self._kernel.observe(want.sysctls)
        self.leaving &= set(have.links)
        return tuple(op for op in diff(want, have, self._routed) if not self._expected(op))

    def _expected(self, operation: Operation) -> bool:
        if not isinstance(operation, Op) or operation.verb != "remove":
            return False
        return isinstance(operation.item, Link) and operation.item.name in self.leaving

    async def _what_can_be(self, want: NetState) -> tuple[Sequence[Operation], CommandFailed | None]:
        """One by one; the first refusal."""
        done, refused, failure = list[Operation](), dict[str, CommandFailed](), None
        for operation in await self._difference(want):
            try:
                await self.issue((operation,))
                done.append(operation)
            except CommandFailed as error:
                failure = failure or error
                if isinstance(operation, Op) and isinstance(operation.item, Link):
                    refused[operation.item.name] = error
        self.refused = refused
        return done, failure
