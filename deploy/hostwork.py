"""Programs run on many hosts at once; all hosts of a fleet examined beside each other.

Invariant: a host that can't be reached is an answer of its own, and keeps nobody else's back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aio.together import together
from deploy.findings import Finding, fatal, findings
from deploy.hostfacts import Facts
from deploy.provision import look
from deploy.roster import KnownHost
from deploy.skew import Seen, compare
from deploy.software import needed
from deploy.upgrade import AT_ONCE, Connect, Watch
from model.errors import FlotaError
from model.spec import Struct

UNREACHED = 255
"""Exit code, as ssh(1) has it."""


class Ran(Struct):
    """A program's end on one host."""

    name: str
    code: int
    out: str = ""
    err: str = ""
    error: str = ""
    """It did not run, or nobody knows how it ended."""


async def run_everywhere(
    connect: Connect,
    hosts: Sequence[KnownHost],
    words: Sequence[str],
    *,
    root: bool,
    timeout: float,
    parallel: int,
    told: Callable[[Ran], None],
) -> tuple[Ran, ...]:
    """In order of the hosts; `told` of each as it ends."""
    turn = asyncio.Semaphore(parallel)

    async def one(known: KnownHost) -> Ran:
        async with turn:
            try:
                to = await connect(known.target)
                try:
                    done = await to.run(words, timeout=timeout, root=root)
                finally:
                    await to.close()
                err = done.err.decode(errors="replace")
                ran = Ran(name=known.name, code=done.code, out=done.text, err=err)
            except FlotaError as error:
                ran = Ran(name=known.name, code=UNREACHED, error=str(error))
            told(ran)
            return ran

    return await together(one(known) for known in hosts)


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
