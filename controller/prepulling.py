"""Hosts get a service's new image before what serves there is stopped: the pulls, and what became of them.

Invariant: at most so many go on at once; one that can't be asked for counts as done, for the roll then goes
as it would without.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import quote

import msgspec

from aio.supervisor import Supervisor
from api.hostcall import head, read_reply, target
from controller.pipes import Pipes
from controller.reconcile.prepull import Prepull, prepull_of, wanted
from controller.snapshot import Cluster
from model.codec import UNREADABLE
from model.errors import Damaged, FlotaError
from model.ids import ServiceId
from model.image import Progress
from model.registries import HEADER, Login, encode_header

log = logging.getLogger("flota.controller")
AT_ONCE = 16
LONGEST = 3600.0
Pull = Callable[[Prepull], Awaitable[str]]
"""Why the image can't be had there; empty: it is there. Raises FlotaError where that can't be found out."""


class Prepulling:
    """`ended` is told of which service a pull has ended."""

    def __init__(
        self, children: Supervisor, pull: Pull, ended: Callable[[ServiceId], None], at_once: int = AT_ONCE
    ) -> None:
        self._children = children
        self._pull = pull
        self._ended = ended
        self._slots = asyncio.Semaphore(at_once)
        self.known: dict[Prepull, str | None] = {}

    def look(self, cluster: Cluster, ident: ServiceId) -> None:
        """Begin what this service needs; forget what it does not need any more, and end what is for a change
        that it has given up: the way back would wait for its slot."""
        service = cluster.services.get(ident)
        mine = cluster.of_service(ident).values()
        need = wanted(service, mine, cluster.hosts) if service is not None else set()
        unneeded = {pull for pull in self.known if pull.service == ident} - need
        for pull in list(unneeded):
            if self.known[pull] is None and service is not None and prepull_of(service, pull.host) == pull:
                unneeded.remove(pull)  # what comes after it on that host needs the image as well
            elif self.known[pull] is None:
                self._children.cancel(_name(pull))
        if unneeded:
            self.known = {pull: why for pull, why in self.known.items() if pull not in unneeded}
        for pull in need - self.known.keys():
            if _name(pull) in self._children:
                continue  # it is ending; nobody waits for what nobody pulls
            self.known = {**self.known, pull: None}
            self._children.start(_name(pull), lambda pull=pull: self._one(pull))  # type: ignore[misc]

    async def _one(self, pull: Prepull) -> None:
        why = ""
        try:
            async with self._slots, asyncio.timeout(LONGEST):
                why = await self._pull(pull)
        except TimeoutError:
            why = f"it is not there after {LONGEST:g} s"
        except Damaged as error:
            why = error.message
        except FlotaError as error:
            log.info("host %s was not asked for %s ahead: %s", pull.host[:12], pull.image, error)
        finally:
            if pull in self.known:
                self.known = {**self.known, pull: why}
            self._ended(pull.service)


def _name(pull: Prepull) -> str:
    return f"prepull/{pull.service}/{pull.rollout}/{pull.host}/{pull.image}"


async def pulled(pipes: Pipes, pull: Prepull, name: str, login: Login) -> str:
    """Have the host pull what it has not; why it could not. Raises FlotaError when it does not answer."""
    if not pull.platform and await _has(pipes, pull, name):
        return ""  # its registry may be away, and is not needed to go back to it
    pipe = await pipes.open(pull.host, name)
    try:
        headers = {"Connection": "close", "Content-Length": "0"}
        if word := encode_header(login):
            headers[HEADER] = word
        path = target("/v1/images/pull", {"ref": pull.image, "platform": pull.platform})
        pipe.writer.write(head("POST", path, headers))
        reply = await (await read_reply(pipe)).checked()
        async for line in reply.lines():
            if (progress := _read(line)) is not None and progress.error:
                return progress.error
        return ""
    finally:
        pipe.writer.close()


async def _has(pipes: Pipes, pull: Prepull, name: str) -> bool:
    """By the very name by which a container of it would look for it."""
    pipe = await pipes.open(pull.host, name)
    try:
        path = f"/v1/images/{quote(pull.image, safe='')}"
        pipe.writer.write(head("GET", path, {"Connection": "close"}))
        return (await read_reply(pipe)).status == 200
    finally:
        pipe.writer.close()


def _read(line: bytes) -> Progress | None:
    try:
        return msgspec.json.decode(line, type=Progress)
    except UNREADABLE:
        return None
