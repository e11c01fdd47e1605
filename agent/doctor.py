"""This host's part of a check-up: its kernel compared with what should be, its peers asked for answers."""

from __future__ import annotations

from collections.abc import Sequence

from agent.context import Context
from agent.plans import network_plan
from model.doctor import HostCheck, PathCheck, Repair
from net.kernel.echo import Answer, Echo, ask
from net.paths import Path, paths_of

SMALL = 84
"""Bytes of ping's usual packet."""


async def examine(context: Context, troubles: Sequence[str]) -> HostCheck:
    """What is not as it should be is repaired first. Raises FlotaError."""
    drifts = await context.network.examine()
    paths = paths_of(network_plan(context.view, context.host, context.facts))
    small = await ask([Echo(source=p.source, target=p.target, size=min(SMALL, p.mtu)) for p in paths])
    large = await ask([Echo(source=p.source, target=p.target, size=p.mtu) for p in paths])
    return HostCheck(
        host=context.host,
        facts=context.facts,
        repairs=tuple(Repair(object=d.object, action=d.action) for d in drifts),
        paths=tuple(_checked(*found) for found in zip(paths, small, large, strict=True)),
        troubles=tuple(troubles),
        leaked=tuple(sorted(a for (_, a), i in context.addresses.held().items() if i not in context.records)),
    )


def _checked(path: Path, small: Answer, large: Answer) -> PathCheck:
    return PathCheck(
        host=path.peer,
        network=path.network,
        target=path.target,
        size=path.mtu,
        small=small.seconds,
        large=large.seconds,
        note=small.error or large.error,
    )
