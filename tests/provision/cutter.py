"""An operator's machine that dies while it adds a host: run as `cutter.py SEEN after|during USER@HOST`.

It dies at the first change of the host of a kind that is not in the file SEEN, once that change is done or
while it goes on. Ends with 99 where it died, with 0 where nothing was left to die at and the host is a
member.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from cli.commands.hosts import connector
from cli.context import App
from cli.fleetapi import FleetOverApi
from deploy.bundles import OwnBundles
from deploy.inventory import HostWish, Target, parse_target
from deploy.provision import Provisioner
from deploy.transport import Finished, Transport

DIED = 99
HALFWAY = 0.15
"""Seconds into a change."""
KINDS = ("update", "packages", "put", "install", "switch", "join")


def kind(argv: Sequence[str]) -> str:
    """Of the change that a program makes; empty: none."""
    words = set(argv)
    if "apt-get" in words:
        return "packages" if "install" in words else "update"
    return next((name for name in ("install", "switch", "join") if name in words), "")


class Cut:
    def __init__(self, real: Transport, seen: Path, side: str) -> None:
        self._real = real
        self._seen = seen
        self._side = side

    @property
    def host(self) -> str:
        return self._real.host

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float, root: bool = True
    ) -> Finished:
        work = asyncio.ensure_future(self._real.run(argv, stdin=stdin, timeout=timeout, root=root))
        await self._die(kind(argv), work)
        return await work

    async def put(self, source: Path, target: str, mode: int) -> None:
        work = asyncio.ensure_future(self._real.put(source, target, mode))
        await self._die("put", work)
        await work

    def held(self, argv: Sequence[str], *, timeout: float) -> AbstractAsyncContextManager[str]:
        return self._real.held(argv, timeout=timeout)

    async def close(self) -> None:
        await self._real.close()

    async def _die(self, name: str, work: asyncio.Future[Finished] | asyncio.Future[None]) -> None:
        if not name or name in self._seen.read_text().split():
            return
        with open(self._seen, "a") as file:
            file.write(f"{name}\n")
        await asyncio.wait({work}, timeout=HALFWAY if self._side == "during" else None)
        os._exit(DIED)


async def main(seen: str, side: str, host: str) -> int:
    connect = connector()

    async def cutting(target: Target) -> Transport:
        return Cut(await connect(target), Path(seen), side)

    async def founded(controller: Transport) -> None:
        raise AssertionError(controller)

    run = Provisioner(cutting, OwnBundles(), lambda host, state, text: print(host, state, text))
    (outcome,) = await run.add([HostWish(target=parse_target(host))], FleetOverApi(App()), founded)
    print(outcome.error)
    return 0 if outcome.result in ("added", "already") else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
