"""Serving an application: a unix socket, TLS, and connections that others dialled.

Invariant: a unix socket is 0660 from its first moment, only a stale one is replaced; TCP is TLS 1.2 or newer.
"""

from __future__ import annotations

import asyncio
import grp
import os
import socket
import ssl
import stat
from collections.abc import Callable

from aiohttp import web

from model.errors import AlreadyExists, InvalidInput

BACKLOG = 512
PATIENCE = 10.0
"""Seconds that a new TLS connection has for its handshake, and then for its first request."""


def _plain(runner: web.AppRunner, sock: socket.socket) -> web.BaseSite:
    return web.SockSite(runner, sock, backlog=BACKLOG)


async def serve_unix(
    runner: web.AppRunner,
    path: str,
    *,
    group: str = "",
    site: Callable[[web.AppRunner, socket.socket], web.BaseSite] = _plain,
) -> web.BaseSite:
    """Listen on `path`, mode 0660; `site` accepts connections. Raises AlreadyExists when another process
    listens there, InvalidInput when something that is no socket has that name, or the group is unknown."""
    await asyncio.get_running_loop().run_in_executor(None, _make_way, path)
    gid = _group(group) if group else -1
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        _bind_private(sock, path)
        os.chown(path, -1, gid)
        os.chmod(path, 0o660)
    except BaseException:
        sock.close()
        raise
    made = site(runner, sock)
    await made.start()
    return made


def _bind_private(sock: socket.socket, path: str) -> None:
    """Bind so that nobody can connect before the mode is set: listening starts only afterwards."""
    folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")  # sun_path holds 107 bytes only
    finally:
        os.close(folder)


def _make_way(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise InvalidInput(f"{path} exists and is no socket", hint="Choose another path, or move it away")
    folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        except (ConnectionRefusedError, FileNotFoundError):
            os.unlink(path)
            return
        except OSError as error:
            raise AlreadyExists(f"{path} is in use: {error.strerror}") from error
        finally:
            os.close(folder)
    raise AlreadyExists(f"another process listens on {path} already")


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise InvalidInput(f"no such group: {name}") from error


def server_context(*, certificate: str, key: str, ca: str) -> ssl.SSLContext:
    """TLS for the controller: 1.2 or newer, client certificates optional and checked against the fleet's CA.
    Arguments are paths of PEM files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cafile=ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


class TlsSite(web.BaseSite):
    """As aiohttp's TCPSite, but a connection that sends no request within `patience` seconds is closed: the
    server itself only times out the pause between requests."""

    def __init__(
        self, runner: web.AppRunner, host: str, port: int, context: ssl.SSLContext, patience: float
    ) -> None:
        super().__init__(runner, ssl_context=context, backlog=BACKLOG)
        self._host = host
        self._port = port
        self._patience = patience

    @property
    def name(self) -> str:
        return f"https://{self._host}:{self._port}"

    async def start(self) -> None:
        await super().start()
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol,
            self._host or None,
            self._port,
            ssl=self._ssl_context,
            backlog=BACKLOG,
            ssl_handshake_timeout=self._patience,
        )

    def _protocol(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        assert server is not None, "the runner is not set up"
        protocol = server()
        loop = asyncio.get_running_loop()
        _silent[protocol] = loop.call_later(self._patience, _close_silent, protocol)
        return protocol


_silent: dict[web.RequestHandler, asyncio.TimerHandle] = {}
"""TLS connections that have sent no whole request yet."""


def heard(request: web.Request) -> None:
    """A whole request has arrived on this connection."""
    timer = _silent.pop(request.protocol, None)
    if timer is not None:
        timer.cancel()


def _close_silent(protocol: web.RequestHandler) -> None:
    del _silent[protocol]
    protocol.force_close()


async def serve_tls(
    runner: web.AppRunner, host: str, port: int, context: ssl.SSLContext, *, patience: float = PATIENCE
) -> int:
    """Listen on an address; the port that was taken (for port 0). Raises AlreadyExists when it is in use."""
    try:
        await TlsSite(runner, host, port, context, patience).start()
    except OSError as error:
        raise AlreadyExists(f"can't listen on {host} port {port}: {error.strerror}") from error
    return int(runner.addresses[-1][1])


def serve_connection(runner: web.AppRunner, transport: asyncio.Transport) -> None:
    """Speak HTTP as the server on a connection that this process dialled: the next bytes are a request."""
    server = runner.server
    assert server is not None, "the runner is not set up"
    protocol = server()
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    transport.resume_reading()
