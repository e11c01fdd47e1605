"""Builds of fakes: a host that says what it was asked for, a fleet that chooses as a real one does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from agent.build.link import Link
from agent.build.session import Bring, Build, serve
from controller.buildplace import Builder, choose, named
from image.build.base import Session
from model.build import BuildPlace, BuildRequest, Done, Placed, StepBegan, StepEnded
from model.buildcache import CacheEntry, CacheFreed, CachePrune, HostCache
from model.ids import HostId


async def echo(request: BuildRequest, session: Session) -> Done:
    session.tell(StepBegan(step=1, name="[1/1] FROM scratch"))
    session.tell(StepEnded(step=1, cached=True))
    return Done(names=request.names)


async def nothing(link: Link, context: str, paths: Sequence[str]) -> str:
    scanned = await link.scan(context, paths)
    if scanned.error is not None:
        raise scanned.error.to_error()
    return scanned.root


class FakeBuilds:
    """The part of `api.imageports.HostImages` that is about builds."""

    def __init__(self) -> None:
        self.building: Build = echo
        self.bring: Bring = nothing
        self.requests: list[BuildRequest] = []
        self.cached: list[CacheEntry] = []
        self.prunes: list[CachePrune] = []
        self.broken: list[BuildRequest] = []
        """Of builds whose client left them."""

    async def build_cache(self) -> HostCache:
        return HostCache(entries=tuple(self.cached))

    async def prune_builds(self, wish: CachePrune) -> CacheFreed:
        self.prunes.append(wish)
        gone, self.cached = self.cached, []
        return CacheFreed(entries=tuple(e.id for e in gone), freed=sum(e.size for e in gone))

    async def build(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def run(request: BuildRequest, session: Session) -> Done:
            self.requests.append(request)
            try:
                return await self.building(request, session)
            except asyncio.CancelledError:
                self.broken.append(request)
                raise

        await serve(reader, writer, run, self.bring)


@contextmanager
def placed(
    hosts: Mapping[HostId, Any], counts: dict[HostId, int], wish: BuildPlace
) -> Iterator[tuple[HostId, Placed]]:
    """As `api.ports.ControllerPort.place_build`."""
    builders = [Builder(host=i, name=h.name, builds=counts.get(i, 0)) for i, h in hosts.items()]
    if wish.host:
        ident = next(i for i, h in hosts.items() if wish.host in (i, h.name))
        choice = named(builders, ident, wish.host)
    else:
        choice = choose(builders, fleet="fake", context=wish.context)
    counts[choice.host] = counts.get(choice.host, 0) + 1
    try:
        yield choice.host, Placed(host=choice.name, why=choice.why)
    finally:
        counts[choice.host] -= 1
