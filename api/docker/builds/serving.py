"""`POST /build`: one build on a host of the fleet's choice, its context handed on as it comes.

Invariant: a build ends with its client. The tar is read no faster than the host takes it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web
from msgspec.structs import replace

from api.channels import Pipe
from api.docker.buildkit.building import asks_for_session
from api.docker.buildkit.building import build as with_session
from api.docker.builds.hosting import connected, known, messages, spread
from api.docker.builds.output import Output, stream
from api.docker.builds.request import Build, place_key, request_of
from api.docker.errors import Refusal
from api.docker.images.stream import Said
from api.docker.route import Call
from model.build import (
    PIECE,
    AskSecret,
    BuildPlace,
    BuildRequest,
    Done,
    Exported,
    Failed,
    Object,
    Scan,
    Scanned,
    Secret,
    SendTar,
    Start,
    Want,
    pack,
)
from model.errors import ErrorBody, Internal, InvalidInput, NotFound, Unavailable
from model.registries import Login, decode_header, normal_host
from model.spec import Struct

CHUNK = 1 << 16
CONFIG_HEADER = "X-Registry-Config"


class Cancel(Struct):
    id: str = ""


async def build(call: Call) -> web.StreamResponse:
    query = call.query_as(Build)
    if asks_for_session(query):
        return await with_session(call)
    request = request_of(query, logins(call.request.headers.get(CONFIG_HEADER, "")))
    said, output = Said(call.request), Output(quiet=query.q)
    try:
        done = await _done(call, query, request, said, output)
        for message in output.done(done):
            await said.say(message)
    except ConnectionError:
        return web.Response(status=499)  # nobody reads it
    except Exception as error:
        return await said.fail(error)
    return await said.end()


async def cancel(call: Call) -> None:
    """One that is not there has ended already."""
    ident = call.query_as(Cancel).id
    if not ident:
        raise InvalidInput("build ID not provided")
    end = call.state.builds.get(ident)
    if end is not None:
        end()


async def _done(call: Call, query: Build, request: BuildRequest, said: Said, output: Output) -> Done:
    """Raises how it failed."""
    node = call.node()
    wish = BuildPlace(host=node, context=place_key(query), platform=next(iter(request.platforms), ""))
    with call.port.place_build(wish) as (host, placed):
        async with connected(call.port, host) as pipe:
            with known(call, query.buildid, pipe) as cancelled:
                pipe.writer.write(pack(Start(request=request)))
                last = await _heard(call.request, pipe, said, output)
    if cancelled.is_set():
        raise Refusal(500, "the build was cancelled")
    if isinstance(last, Failed):
        raise output.failure(last, request.file)
    if isinstance(last, Exception):
        raise last
    for name in request.names if not node else ():  # as it was asked for, whatever the host says
        async for words in spread(call.port, name, last.host or placed.host):
            await said.say(stream(f"[Warning] {words}\n"))
    return replace(last, names=request.names)


async def _heard(request: web.Request, pipe: Pipe, said: Said, output: Output) -> Done | Failed | Exception:
    """Its last word, or what went wrong with hearing it."""
    async with asyncio.TaskGroup() as group:
        sending: list[asyncio.Task[None]] = []
        last: Done | Failed | Exception = Unavailable("the connection to the build broke")
        try:
            async for message in messages(pipe):
                if isinstance(message, Done | Failed):
                    last = message
                    break
                if isinstance(message, SendTar):
                    sending.append(group.create_task(_send(request, pipe, message.ask)))
                elif isinstance(message, Scan | AskSecret):
                    pipe.writer.write(_refused(message))
                elif isinstance(message, Want | Exported):
                    last = Internal("the host asks for what this build does not have")
                    break
                else:
                    for shown in output.take(message):
                        await said.say(shown)
        except Exception as error:
            last = error
        for task in sending:
            task.cancel()
    return last


async def _send(request: web.Request, pipe: Pipe, ask: int) -> None:
    """The request's body, at the host's pace."""
    try:
        async for data in request.content.iter_chunked(PIECE):
            pipe.writer.write(pack(Object(ask=ask, digest="", data=data)))
            await pipe.writer.drain()
        pipe.writer.write(pack(Object(ask=ask, digest="", last=True)))
    except OSError:
        return  # the reader of the pipe tells why
    except Exception as error:  # of the client's connection, or no HTTP
        pipe.writer.write(pack(Object(ask=ask, digest="", gone=str(error)[:200] or "the client has gone")))


def _refused(message: Scan | AskSecret) -> bytes:
    """What only clients of our own protocol can give."""
    if isinstance(message, AskSecret):
        return pack(Secret(ask=message.ask))
    error = NotFound(f"there is no build context {message.context[:80]!r}")
    return pack(Scanned(ask=message.ask, error=ErrorBody.of(error)))


def logins(header: str) -> Mapping[str, Login]:
    """By registry: Base64 of a JSON map of what X-Registry-Auth has for one. Raises InvalidInput, without a
    word of what it holds."""
    if not header:
        return {}
    try:
        padded = header + "=" * (-len(header) % 4)
        raw = base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
        whole = msgspec.json.decode(raw, type=dict[str, dict[str, Any]] | None) or {}
    except (ValueError, msgspec.MsgspecError, RecursionError):
        raise InvalidInput(f"the header {CONFIG_HEADER} holds no logins") from None
    found: dict[str, Login] = {}
    for host, wire in whole.items():
        one = decode_header(base64.urlsafe_b64encode(msgspec.json.encode(wire)).decode())
        if one:
            found[normal_host(host)] = one
    return found
