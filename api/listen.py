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

from aiohttp import web

from model.errors import AlreadyExists, InvalidInput

BACKLOG = 512


async def serve_unix(runner: web.AppRunner, path: str, *, group: str = "") -> web.SockSite:
    """Listen on `path`, mode 0660. Raises AlreadyExists when another process listens there, InvalidInput when
    something that is no socket has that name, or the group is unknown."""
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
    site = web.SockSite(runner, sock, backlog=BACKLOG)
    await site.start()
    return site


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


async def serve_tls(runner: web.AppRunner, host: str, port: int, context: ssl.SSLContext) -> int:
    """Listen on an address; the port that was taken (for port 0). Raises AlreadyExists when it is in use."""
    try:
        site = web.TCPSite(runner, host, port, ssl_context=context, backlog=BACKLOG)
        await site.start()
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
