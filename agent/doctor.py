"""This host's part of a check-up: its kernel compared with what should be, its peers asked for answers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from msgspec.structs import replace

from agent.context import Context
from agent.lifecycle import watched
from agent.plans import network_plan
from agent.policies import policies_of
from aio.supervisor import in_thread
from aio.together import together
from model.diagnosis import NOWHERE
from model.directory import Directory
from model.doctor import HostCheck, PathCheck, Repair, Through
from model.netoptions import apart
from net.kernel.echo import Answer, Echo, ask
from net.kernel.ways import ways
from net.paths import Path, paths_of
from net.policy import endpoint_key

SMALL = 84
"""Bytes of ping's usual packet."""
LARGE = 1 << 16
"""More than any link carries: the path's own limit holds."""
CONTAINERS, PEERS = 3, 2
"""Of a network so many are tried, and so many others asked: a container may have changed its own."""
AT_ONCE = 32
"""Containers that ask at the same time."""


async def examine(context: Context, troubles: Callable[[], Sequence[str]]) -> HostCheck:
    """What is not as it should be is repaired first. All that may go unanswered is asked at once: a check-up
    takes no longer for being made while much is broken. Raises FlotaError."""
    drifts = await context.network.examine()
    plan = network_plan(context.view, context.host, context.facts)
    paths = paths_of(replace(plan, ends=context.tunnel_keys.ends))
    small, large = await together(
        ask([Echo(source=p.source, target=p.target, size=min(most, p.mtu)) for p in paths])
        for most in (SMALL, LARGE)
    )
    led = await in_thread(ways, [(p.source, p.target) for p in paths])
    answering = [path for path, answer in zip(paths, small, strict=True) if answer.seconds is not None]
    turn = asyncio.Semaphore(AT_ONCE)
    through = await together(_through(*found, turn) for found in _trials(context, answering))
    return HostCheck(
        host=context.host,
        facts=context.facts,
        repairs=tuple(Repair(object=d.object, action=d.action, failed=d.failed) for d in drifts),
        paths=tuple(_checked(*found) for found in zip(paths, small, large, led, strict=True)),
        through=tuple(through),
        troubles=tuple(troubles()),
        leaked=tuple(sorted(a for (_, a), i in context.addresses.held().items() if i not in context.records)),
    )


def _checked(path: Path, small: Answer, large: Answer, led: str) -> PathCheck:
    return PathCheck(
        host=path.peer,
        network=path.network,
        target=path.target,
        size=path.mtu,
        port=path.port,
        small=small.seconds,
        large=large.seconds,
        note=small.error or large.error,
        way="" if not path.link or led == path.link else led or NOWHERE,
        tunnel=path.tunnel,
    )


Trial = tuple[Sequence[Path], Sequence[tuple[str, str]]]
"""Peers to ask, and by whom: namespace and address of containers."""


def _trials(context: Context, answering: Sequence[Path]) -> Iterator[Trial]:
    """Of each network and family on which others answer this host: containers that nothing restrains and
    that are to stay: the address of one that ends may be another's already, on another host."""
    asked: dict[tuple[str, bool], list[Path]] = defaultdict(list)
    open_ = {view.spec.name for view in context.view.networks.values() if not apart(view.spec.options)}
    for path in answering:
        if path.network in open_:
            asked[path.network, ":" in path.target].append(path)
    closed = policies_of(context.view, Directory(), context.host, context.records, {}).endpoints
    by_name = {view.spec.name: ident for ident, view in context.view.networks.items()}
    for (name, six), paths in asked.items():
        network, found = by_name[name], list[tuple[str, str]]()
        for record in context.records.values():
            if record.created is None or not watched(record, context.wishes.get(record.instance)):
                continue
            for foot in record.endpoints if endpoint_key(record.instance, network) not in closed else ():
                address = foot.ipv6 if six else foot.ipv4
                if foot.network == network and address:
                    found.append((f"/proc/{record.created.pid}/ns/net", address))
        if found:
            yield paths[:PEERS], found[:CONTAINERS]


async def _through(
    paths: Sequence[Path], containers: Sequence[tuple[str, str]], turn: asyncio.Semaphore
) -> Through:
    """Whether one of the containers gets an answer of one of the hosts."""

    async def answered(namespace: str, address: str) -> bool:
        echoes = [Echo(source=address, target=p.target, size=min(SMALL, p.mtu)) for p in paths]
        async with turn:
            try:
                answers = await ask(echoes, namespace)
            except OSError:
                return False  # it has just ended
        return any(answer.seconds is not None for answer in answers)

    return Through(
        network=paths[0].network,
        version=6 if ":" in paths[0].target else 4,
        containers=len(containers),
        answered=any(await together(answered(*one) for one in containers)),
    )
