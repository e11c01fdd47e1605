"""Programs run on many hosts at once; all hosts of a fleet examined beside each other.

Invariant: a host that can't be reached is an answer of its own, and keeps nobody else's back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aio.together import together
from deploy.findings import Finding, fatal, findings
from deploy.hostfacts import Facts
from deploy.inventory import Target
from deploy.provision import look
from deploy.roster import KnownHost
from deploy.skew import Seen, compare
from deploy.software import needed
from deploy.transport import Streaming
from deploy.upgrade import AT_ONCE, Connect, Watch
from model.errors import FlotaError
from model.spec import Struct

UNREACHED = 255
"""Exit code, as ssh(1) has it."""


MOST_LINE = 1 << 16
"""Bytes after which a line that does not end is told as one."""


class Ran(Struct):
    """A program's end on one host."""

    name: str
    code: int


class Line(Struct):
    """That a program has said, or why it did not run."""

    name: str
    """Of the host."""
    text: str
    stream: int = 1
    """2: to standard error."""


class Lines:
    """Bytes as they come → whole lines; what is left at the end is one, too."""

    def __init__(self, name: str, told: Callable[[Line], None]) -> None:
        self._name = name
        self._told = told
        self._rest = {1: b"", 2: b""}

    def heard(self, stream: int, data: bytes) -> None:
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        if len(rest) > MOST_LINE:
            lines, rest = [*lines, rest], b""
        self._rest[stream] = rest
        for line in lines:
            self._tell(stream, line)

    def end(self) -> None:
        for stream, rest in self._rest.items():
            if rest:
                self._tell(stream, rest)
        self._rest = {1: b"", 2: b""}

    def _tell(self, stream: int, line: bytes) -> None:
        text = line.removesuffix(b"\r").decode(errors="replace")
        self._told(Line(name=self._name, text=text, stream=stream))


async def run_everywhere(
    connect: Callable[[Target], Awaitable[Streaming]],
    hosts: Sequence[KnownHost],
    words: Sequence[str],
    *,
    root: bool,
    timeout: float,
    parallel: int,
    told: Callable[[Line], None],
) -> tuple[Ran, ...]:
    """In order of the hosts; `told` of each line as it comes. Raises BrokenPipeError where `told` does, once
    all programs have been left."""
    turn, me, gone = asyncio.Semaphore(parallel), asyncio.current_task(), list[BrokenPipeError]()
    assert me is not None

    def tell(line: Line) -> None:
        """Transports would take the error of ours for one of theirs."""
        if gone:
            return
        try:
            told(line)
        except BrokenPipeError as error:
            gone.append(error)
            me.cancel()

    async def one(known: KnownHost) -> Ran:
        lines = Lines(known.name, tell)
        async with turn:
            try:
                to = await connect(known.target)
                try:
                    code = await to.stream(words, timeout=timeout, root=root, heard=lines.heard)
                finally:
                    lines.end()
                    await to.close()
            except FlotaError as error:
                tell(Line(name=known.name, text=str(error), stream=2))
                return Ran(name=known.name, code=UNREACHED)
            return Ran(name=known.name, code=code)

    ran: tuple[Ran, ...] = ()
    try:
        ran = await together(one(known) for known in hosts)
    except asyncio.CancelledError:
        if not gone:
            raise
    if gone:
        me.uncancel()
        raise gone[0]
    return ran


def exit_code(ran: Sequence[Ran]) -> int:
    """That of the first host on which it was not 0. Pure."""
    return next((one.code for one in ran if one.code), 0)


class Found(Struct):
    where: str
    """Host, or hosts."""
    finding: Finding


async def examine(connect: Connect, hosts: Sequence[KnownHost], watch: Watch) -> tuple[Found, ...]:
    """What speaks against each host, and what they don't agree in."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(known: KnownHost) -> Facts | FlotaError:
        async with turn:
            try:
                to = await connect(known.target)
                try:
                    return await look(to)
                finally:
                    await to.close()
            except FlotaError as error:
                return error

    facts = await together(one(known) for known in hosts)
    found: list[Found] = []
    seen: list[Seen] = []
    now = None
    try:
        now = await watch.look()
    except FlotaError as error:
        found.append(Found(where="the fleet", finding=fatal(error.message, error.hint)))
    for known, its in zip(hosts, facts, strict=True):
        if isinstance(its, FlotaError):
            found.append(Found(where=known.name, finding=fatal(its.message, its.hint)))
            continue
        against = (*findings(its, controller=bool(its.controls)), *needed(its).findings)
        found += [Found(where=known.name, finding=one) for one in against]
        node = now.nodes.get(known.name) if now is not None else None
        seen.append(Seen(name=known.name, facts=its, agent=node.release if node is not None else ""))
    found += [
        Found(where=where, finding=finding)
        for where, finding in compare(seen, now.controller if now is not None else "")
    ]
    return tuple(found)
