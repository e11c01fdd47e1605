"""What provisioning needs of a fleet, over the API that the command line is pointed at."""

from __future__ import annotations

import asyncio
from typing import Any

from cli.context import App, segment
from deploy.fleetport import Invitation, invitation, named, node_of
from deploy.steps import FleetView
from model.api import CreateToken
from model.codec import sparing
from model.errors import Unavailable

TTL, DEADLINE = 600.0, 60.0


class FleetOverApi:
    """See `deploy.fleetport.FleetPort`. Calls take turns: the client has one connection."""

    def __init__(self, app: App, deadline: float = DEADLINE) -> None:
        self._app = app
        self._deadline = deadline
        self._turn = asyncio.Lock()

    async def view(self) -> FleetView:
        info = await self._call("GET", "/v1/info")
        nodes = await self._call("GET", "/v1/hosts")
        return FleetView(fleet_id=info["fleet_id"], nodes=tuple(map(node_of, nodes)))

    async def invite(self, replaces: str = "") -> Invitation:
        body = sparing(CreateToken(ttl=TTL, once=True, replaces=replaces))
        made = await self._call("POST", "/v1/tokens", body=body)
        return invitation(made.get("join_command", ""), "the fleet")

    async def remove(self, ref: str) -> None:
        await self._call("DELETE", f"/v1/hosts/{segment(ref)}", force=True)

    async def drain(self, ref: str) -> None:
        await self._call("PATCH", f"/v1/hosts/{segment(ref)}", body={"availability": "drain"})

    async def staying(self, ref: str) -> tuple[str, ...]:
        return named(await self._call("GET", "/v1/instances", filter=[f"node={ref}"]), of_service=True)

    async def plain(self, ref: str) -> tuple[str, ...]:
        found = await self._call("GET", "/v1/instances", all=True, filter=[f"node={ref}"])
        return named(found, of_service=False)

    async def _call(self, method: str, path: str, **words: Any) -> Any:
        async with self._turn:
            try:
                async with asyncio.timeout(self._deadline):
                    return await asyncio.to_thread(self._app.client.call, method, path, **words)
            except TimeoutError:
                self._app.forget_client()  # its connection hangs, with a thread that waits on it
                raise Unavailable(f"the fleet does not answer within {self._deadline:g} s") from None
