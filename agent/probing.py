"""One probe of a container's health: a command in it, a connection, or a request.

Invariants: a probe is over after its check's timeout, and nothing of it runs on, also when it is cancelled;
what it reads of a container is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence

from agent import execs
from agent.context import Context
from agent.probe import Check
from agent.record import Local
from agent.runtime.base import ExecHandle
from model.errors import FlotaError
from model.health import KEPT_OUTPUT, ProbeResult
from model.spec import ExecProbe, HttpProbe, ShellProbe, TcpProbe
from model.status import Endpoint
from model.streams import ExecSpec

SHELL = ("/bin/sh", "-c")
NOT_DONE = -1
"""Docker's exit code of a probe that took too long or could not be made."""
LAST_BREATH = 5.0
"""Seconds that a killed probe may take to be gone."""


PATIENCE = 0.2
"""Seconds in which the rest of an HTTP answer may follow its status."""


async def probe(
    context: Context, record: Local, endpoints: Sequence[Endpoint], check: Check, shell: Sequence[str]
) -> ProbeResult:
    """Look once. `endpoints` are those in the container's network namespace, `shell` the image's."""
    began = context.clock.now()
    try:
        async with asyncio.timeout(check.timeout):
            code, output = await _look(context, record, endpoints, check, shell)
    except TimeoutError:
        code, output = NOT_DONE, f"Health check exceeded timeout ({check.timeout:g}s)".encode()
    except FlotaError as error:
        code, output = NOT_DONE, str(error).encode()
    except OSError as error:
        code, output = 1, (error.strerror or str(error)).encode()
    text = output[:KEPT_OUTPUT].decode(errors="replace")
    return ProbeResult(start=began, end=context.clock.now(), exit_code=code, output=text)


async def _look(
    context: Context, record: Local, endpoints: Sequence[Endpoint], check: Check, shell: Sequence[str]
) -> tuple[int, bytes]:
    match check.probe:
        case ExecProbe(args=args):
            return await _run(context, record, args, check.timeout)
        case ShellProbe(command=command):
            return await _run(context, record, (*(shell or SHELL), command), check.timeout)
        case TcpProbe(port=port):
            (await connect(context, record, endpoints, port)).close()
            return 0, b""
        case HttpProbe():
            with await connect(context, record, endpoints, check.probe.port) as connection:
                return await _get(connection, check.probe)


async def connect(context: Context, record: Local, endpoints: Sequence[Endpoint], port: int) -> socket.socket:
    """To where others connect to it: its first address, for who listens on loopback alone serves nobody. The
    loopback is asked where it has no address of its own. Raises OSError."""
    addresses = [address for e in endpoints for address in (e.ipv4, e.ipv6) if address]
    if record.created is None:
        raise ConnectionRefusedError("it does not run")
    address = addresses[0] if addresses else "127.0.0.1"
    try:
        return await context.dial(record.created.pid, address, port)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, f"port {port} of {address}: {reason}") from error


async def _run(context: Context, record: Local, args: Sequence[str], timeout: float) -> tuple[int, bytes]:
    """Should this agent die meanwhile, the runtime ends it, a second later than we would."""
    handle = await execs.start(context, record.instance, ExecSpec(args=tuple(args)), deadline=timeout + 1)
    ended = False
    try:
        output = await _all(handle)
        code = (await handle.wait()).code
        ended = True
    finally:
        if not ended:
            await _put_down(handle)
        await handle.close()
    return NOT_DONE if code is None else code, output


async def _all(handle: ExecHandle) -> bytes:
    kept = bytearray()
    while (item := await handle.read()) is not None:
        kept += item[1][: KEPT_OUTPUT - len(kept)]
    return bytes(kept)


async def _put_down(handle: ExecHandle) -> None:
    await handle.kill()
    try:
        async with asyncio.timeout(LAST_BREATH):
            await handle.wait()
    except TimeoutError:
        return  # in uninterruptible sleep; its conmon waits for it


async def _get(connection: socket.socket, wish: HttpProbe) -> tuple[int, bytes]:
    """RFC 9112: the status decides, the answer's begin is kept as output."""
    loop = asyncio.get_running_loop()
    request = f"GET {wish.path} HTTP/1.1\r\nHost: localhost:{wish.port}\r\n"
    request += "User-Agent: flota\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    await loop.sock_sendall(connection, request.encode())
    said = await _answer(lambda: loop.sock_recv(connection, KEPT_OUTPUT))
    words = said.split(b"\r\n", 1)[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return 1, b"this is no HTTP: " + said[:80]
    return 0 if 200 <= int(words[1][:4]) < 400 else 1, said


async def _answer(receive: Callable[[], Awaitable[bytes]]) -> bytes:
    """Its first line, and what follows without delay: who streams for ever has answered too."""
    said = b""
    while b"\n" not in said and len(said) < KEPT_OUTPUT and (chunk := await receive()):
        said += chunk
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(PATIENCE):
            while len(said) < KEPT_OUTPUT and (chunk := await receive()):
                said += chunk
    return said[:KEPT_OUTPUT]
