"""What an upgrade sees of the fleet: over the API that the command line is pointed at, whoever answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from cli.context import App, segment
from deploy.upgrade import FleetNow, NodeNow
from model.errors import Unavailable

DEADLINE = 20.0


class FleetWatch:
    """See `deploy.upgrade.Watch`. Calls take turns: the client has one connection."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._turn = asyncio.Lock()

    async def look(self) -> FleetNow:
        info = await self._call("/v1/info")
        hosts = await self._call("/v1/hosts")
        nodes = {
            one["host"]["spec"]["name"]: NodeNow(
                state=one["host"].get("state", "joining"), release=one["host"]["facts"].get("release", "")
            )
            for one in hosts
        }
        return FleetNow(controller=info.get("release", ""), nodes=nodes)

    async def expect_away(self, name: str, seconds: float) -> None:
        await self._call(f"/v1/hosts/{segment(name)}/away", method="POST", body={"seconds": seconds})

    async def processes(self, name: str) -> Mapping[str, int]:
        found = await self._call("/v1/instances", filter=[f"node={name}"])
        pids = ((one["instance"]["id"], one.get("status", {}).get("pid", 0)) for one in found)
        return {ident: pid for ident, pid in pids if pid}

    async def _call(self, path: str, *, method: str = "GET", **query: Any) -> Any:
        async with self._turn:
            try:
                async with asyncio.timeout(DEADLINE):
                    return await asyncio.to_thread(self._app.client.call, method, path, **query)
            except TimeoutError:
                self._app.forget_client()  # its connection hangs, with a thread that waits on it
                raise Unavailable(f"the fleet does not answer within {DEADLINE:g} s") from None
