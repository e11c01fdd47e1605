"""`POST /containers/{id}/attach` and `/resize`: the streams of a container's first process.

A client attaches before it starts: what has ended is made ready for its next start, which then is the one
that it sees from its beginning.
"""

from __future__ import annotations

from aiohttp import web

from api.docker.containers.logs import content_type
from api.docker.detach import DEFAULT, parse_keys
from api.docker.hosts import asking, frames, instance_path
from api.docker.route import Call
from api.docker.streams import Wish, carry, hijack, host_stream
from api.hijack import Taken
from model.api import InstanceInfo
from model.errors import CommandFailed, FlotaError, InvalidInput, WrongState
from model.spec import Struct
from model.status import Phase
from model.streams import STDERR, STDOUT, pack, pack_resize

MOST_CELLS = 1 << 16


class Attach(Struct):
    detachKeys: str = ""
    logs: bool = False
    stream: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False


class Resize(Struct):
    h: int = 0
    w: int = 0


async def attach(call: Call) -> web.StreamResponse:
    query = call.query_as(Attach)
    info = call.port.get_instance(call.ref())
    spec = info.instance.spec
    if info.status.paused:
        raise WrongState(f"Container {info.instance.id} is paused, unpause the container before attach")
    if not query.stream and not query.logs:
        raise InvalidInput("Bad parameters: choose stream, logs or both")
    keys = parse_keys(query.detachKeys or DEFAULT) if spec.tty and query.stdin else b""
    wish = Wish(
        terminal=spec.tty,
        stdin=query.stdin and spec.stdin,
        stdout=query.stdout or not query.stderr,
        stderr=query.stderr and not spec.tty,
        keys=keys,
        ends_stdin=spec.stdin_once,
    )
    if not query.stream:
        return await _logs(call, info, wish)
    return await _stream(call, await _ready(call, info), wish, logs=query.logs)


async def _ready(call: Call, info: InstanceInfo) -> InstanceInfo:
    """It runs, or waits for its start."""
    if info.status.phase.ended and info.status.phase is not Phase.LOST:
        info = await call.port.start_instance(info.instance.id, hold=True)
    elif not info.status.phase.live:
        await call.port.wait_instance(info.instance.id, "created")
    return info


async def _stream(call: Call, info: InstanceInfo, wish: Wish, *, logs: bool) -> web.StreamResponse:
    """One that can't be made is told by the start, as in Docker: its streams just end."""
    ident, host = call.port.locate_instance(info.instance.id)
    path = instance_path(
        ident, "attach", {"stdin": wish.stdin, "logs": logs, "attempt": info.instance.attempt}
    )
    kind = content_type(call.version, terminal=wish.terminal)
    try:
        async with host_stream(call.port, host, path) as pipe:
            client = hijack(call.request, kind)
            try:
                with call.state.sessions.attached(ident, pipe.writer):
                    await carry(client, pipe, wish)
            finally:
                client.writer.close()
    except CommandFailed:
        hijack(call.request, kind).writer.close()
    return Taken()


async def _logs(call: Call, info: InstanceInfo, wish: Wish) -> web.StreamResponse:
    """What was said so far, and no more; the head leaves first, as of an exec."""
    asked = {"stdout": "true" if wish.stdout else "false", "stderr": "true" if wish.stderr else "false"}
    client = hijack(call.request, content_type(call.version, terminal=wish.terminal))
    try:
        async with asking(call.port, info.instance.id, "GET", "logs", asked) as reply:
            async for kind, payload in frames(reply):
                if kind in (STDOUT, STDERR):
                    client.writer.write(payload if wish.terminal else pack(kind, payload))
                    await client.writer.drain()
    except FlotaError as error:
        said = f"{error.message}\r\n".encode()
        client.writer.write(said if wish.terminal else pack(STDERR, said))
    finally:
        client.writer.close()
    return Taken()


def size_of(query: Resize) -> tuple[int, int]:
    """(rows, columns). Raises InvalidInput."""
    if not (0 < query.h < MOST_CELLS and 0 < query.w < MOST_CELLS):
        raise InvalidInput(f"{query.h} rows and {query.w} columns are no size of a terminal")
    return query.h, query.w


async def resize(call: Call) -> web.Response:
    """By whoever is attached; by a look of our own where nobody is."""
    rows, cols = size_of(call.query_as(Resize))
    info = call.port.get_instance(call.ref())
    if not info.status.phase.live:
        raise WrongState(f"Container {info.instance.id} is not running")
    if not call.state.sessions.resize(info.instance.id, rows, cols):
        if info.instance.spec.stdin_once:
            raise WrongState(f"nobody is attached to container {info.instance.name}, whose terminal it is")
        ident, host = call.port.locate_instance(info.instance.id)
        async with host_stream(call.port, host, instance_path(ident, "attach")) as pipe:
            pipe.writer.write(pack_resize(rows, cols))
            await pipe.writer.drain()
    return web.Response(status=200)
