"""What provisioning needs of the fleet that hosts are added to, and its implementation over SSH.

Over SSH it asks the `flota` command on the controller's host: nothing but sshd need be reachable from here.
The command line has another one, over the API of the fleet that it is pointed at.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Protocol

from deploy.steps import FLOTA, FleetView, Node
from deploy.transport import Transport, checked
from model.errors import CommandFailed, Unavailable
from model.spec import Struct

DEADLINE = 60.0
AT_ONCE = 8
"""Questions; sshd opens 10 sessions on a connection, unless it is told otherwise (MaxSessions)."""


class Invitation(Struct):
    """By which one host joins."""

    token: str
    """Good once, and for some minutes; never in an argument list or a log."""
    address: str
    """ADDRESS:PORT of the controller."""


class FleetPort(Protocol):
    async def view(self) -> FleetView: ...

    async def invite(self, replaces: str = "") -> Invitation:
        """`replaces`: id of the host whose place it takes."""
        ...

    async def remove(self, ref: str) -> None:
        """Forget a host."""
        ...

    async def drain(self, ref: str) -> None:
        """It takes nothing new, and what services have there goes elsewhere."""
        ...

    async def staying(self, ref: str) -> tuple[str, ...]:
        """Names of the services' containers that are on a host still."""
        ...

    async def plain(self, ref: str) -> tuple[str, ...]:
        """Names of a host's containers that are no service's, also of those that don't run."""
        ...


class FleetOverTransport:
    """`to` is the controller's host."""

    def __init__(self, to: Transport) -> None:
        self._to = to
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def view(self) -> FleetView:
        info = (await self._json("info"))[0]
        nodes = await self._json("node", "ls")
        return FleetView(fleet_id=str(info.get("fleet_id", "")), nodes=tuple(map(node_of, nodes)))

    async def invite(self, replaces: str = "") -> Invitation:
        words = ("token", "create", "--once", "--ttl", "10m", *(("--replace", replaces) if replaces else ()))
        return invitation(await self._said(*words), self._to.host)

    async def remove(self, ref: str) -> None:
        await self._said("node", "rm", "--force", "--", ref)

    async def drain(self, ref: str) -> None:
        await self._said("node", "update", "--availability", "drain", "--", ref)

    async def staying(self, ref: str) -> tuple[str, ...]:
        return named(await self._json("ps", "--filter", f"node={ref}"), of_service=True)

    async def plain(self, ref: str) -> tuple[str, ...]:
        return named(await self._json("ps", "--all", "--filter", f"node={ref}"), of_service=False)

    async def _said(self, *words: str) -> str:
        async with self._turn:
            done = await checked(
                self._to, [FLOTA, *words], timeout=DEADLINE, what=f"`flota {' '.join(words[:2])}`"
            )
        return done.text

    async def _json(self, *words: str) -> list[dict[str, Any]]:
        said = await self._said(*words, "--format", "json")
        try:
            return [json.loads(line) for line in said.splitlines() if line.strip()]
        except ValueError:
            raise CommandFailed(f"{self._to.host}: `flota {words[0]}` says no JSON") from None


def node_of(reply: dict[str, Any]) -> Node:
    """A host of `GET /v1/hosts`."""
    host = reply.get("host", {})
    facts = host.get("facts", {})
    return Node(
        id=str(host.get("id", "")),
        name=str(host.get("spec", {}).get("name", "")),
        state=str(host.get("state", "joining")),
        address=str(facts.get("address", "")),
        version=str(facts.get("version", "")),
        release=str(facts.get("release", "")),
    )


def named(replies: list[dict[str, Any]], *, of_service: bool) -> tuple[str, ...]:
    """Names of containers of `GET /v1/instances`: services', or others."""
    found = (reply.get("instance", {}) for reply in replies)
    return tuple(sorted(str(one.get("name", "")) for one in found if bool(one.get("service")) == of_service))


def invitation(join_command: str, controller: str) -> Invitation:
    """Of `flota join TOKEN ADDRESS:PORT`. Raises Unavailable for a controller that nobody can join."""
    words = join_command.split()
    if len(words) != 4:
        raise Unavailable(
            f"{controller}: the controller does not tell where hosts can join it",
            hint="It must listen on TCP: see `flota up --port`",
        )
    return Invitation(token=words[2], address=words[3])
