"""Routes that agents call with their certificates: the session, and connections offered for our use."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import ClientConnectionResetError, WSMsgType, web

from aio.keepalive import keep_alive
from api.hijack import Taken, require, take_over
from api.routes.route import ControllerCall
from model.api import PullLogin
from model.blobs import BlobPeers, BlobWord
from model.ids import HostId, InstanceId
from model.registries import encode_header
from model.renewal import RenewReply, RenewRequest

PIPE = "flota-pipe"
"""Value of the Upgrade header of an offered connection."""
MAX_FRAME = 64 << 20
"""Bytes of one session message; a whole View fits."""
CLOSE_SECONDS = 2.0


class SocketChannel:
    """A WebSocket as `api.ports.Channel`."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def send(self, frame: bytes) -> None:
        """Waits while the peer does not read. Raises ConnectionError once it is gone."""
        await self._socket.send_bytes(frame)

    async def receive(self) -> bytes | None:
        message = await self._socket.receive()
        if message.type is WSMsgType.BINARY:
            data: bytes = message.data
            return data
        return None

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError, ClientConnectionResetError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._socket.close()


async def session(call: ControllerCall) -> web.StreamResponse:
    socket = web.WebSocketResponse(max_msg_size=MAX_FRAME, compress=False, autoping=True)
    await socket.prepare(call.request)
    channel = SocketChannel(socket)
    try:
        who = call.identity
        await call.port.serve_session(HostId(who.id), who.certificate, channel, who.valid_from)
    finally:
        await channel.close()
    return socket


async def login(call: ControllerCall) -> PullLogin:
    """Not even for admins: it goes to the host that is to pull, and nowhere else."""
    found = call.port.login_for_pull(HostId(call.identity.id), InstanceId(call.ref()))
    return PullLogin(login=encode_header(found))


async def blob(call: ControllerCall) -> BlobPeers:
    host, certificate = HostId(call.identity.id), call.identity.certificate
    return call.port.share_blob(host, certificate, call.body_as(BlobWord))


async def renew(call: ControllerCall) -> RenewReply:
    host, certificate = HostId(call.identity.id), call.identity.certificate
    return await call.port.renew(host, certificate, call.body_as(RenewRequest))


async def pipe(call: ControllerCall) -> web.StreamResponse:
    require(call.request, PIPE)
    offered = take_over(call.request, PIPE)
    try:
        keep_alive(offered.writer.transport)
        await call.port.accept_pipe(HostId(call.identity.id), call.identity.certificate, offered)
    finally:
        offered.writer.close()
    return Taken()
