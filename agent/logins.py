"""Who this host is at a registry when it pulls for an instance: asked of the controller, pull by pull, over
mutual TLS, and kept nowhere.

A controller that is away, or older than this question, knows no login: the pull is tried as nobody.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
import msgspec

from model.api import PullLogin
from model.codec import UNREADABLE, decode_json
from model.errors import Damaged, ErrorBody, FlotaError
from model.ids import InstanceId
from model.registries import NOBODY, Login, decode_header

log = logging.getLogger("flota.agent")
WITHIN = 5.0
"""Seconds for the answer."""
MAX_REPLY = 1 << 16
AskLogin = Callable[[InstanceId], Awaitable[Login]]


async def no_login(instance: InstanceId) -> Login:
    """Of a host without a controller, and in tests."""
    del instance
    return NOBODY


def asking(controllers: Callable[[], Sequence[str]], tls: ssl.SSLContext) -> AskLogin:
    """Asks the first of the controllers that answers. Raises Damaged for a login that the controller can't
    open any more: to pull as nobody would only be refused, and nobody would know why."""

    async def ask(instance: InstanceId) -> Login:
        for url in controllers():
            try:
                return await _asked(f"{url}/v1/agents/logins/{instance}", tls)
            except Damaged:
                raise
            except (aiohttp.ClientError, OSError, TimeoutError, FlotaError, *UNREADABLE) as error:
                log.info("no login from %s: %s", url, str(error) or type(error).__name__)
        return NOBODY

    return ask


async def _asked(url: str, tls: ssl.SSLContext) -> Login:
    timeout = aiohttp.ClientTimeout(total=WITHIN)
    async with aiohttp.ClientSession(timeout=timeout) as client, client.get(url, ssl=tls) as reply:
        data = bytearray()
        while chunk := await reply.content.read(MAX_REPLY - len(data)):
            data += chunk
        if reply.status != 200:
            raise decode_json(bytes(data), ErrorBody, "the controller's reply").to_error()
    return decode_header(msgspec.json.decode(data, type=PullLogin).login)
