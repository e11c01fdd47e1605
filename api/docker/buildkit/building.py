"""`POST /build?version=2` with a session: how Docker's command of 20.10 builds with DOCKER_BUILDKIT=1.

The reply is a stream of JSON whose `aux` carries BuildKit's own messages of progress. Source: moby,
api/server/router/build and builder-next. Invariant: a build ends with its client.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import AsyncGenerator, Mapping

import msgspec
from aiohttp import web
from msgspec.structs import replace

from api.docker.buildkit.asking import Source
from api.docker.buildkit.front import (
    CONTEXT,
    DOCKERFILE,
    Folder,
    Plan,
    cache_ways,
    exporters_of,
    given,
    names_of,
    outputs_of,
)
from api.docker.buildkit.messages import StatusResponse
from api.docker.buildkit.running import Wanted
from api.docker.buildkit.sessions import BuildSession
from api.docker.buildkit.trace import Trace
from api.docker.buildkit.uploads import PREFIX, REMOTE
from api.docker.buildkit.wire import encode
from api.docker.builds.output import stream
from api.docker.builds.request import Build, place_key, request_of
from api.docker.images.stream import Said, words_of
from api.docker.route import Call
from model.build import PIECE, Done, FromHost
from model.errors import FlotaError, InvalidInput

SESSION = "client-session"
TRACE, IMAGE = "moby.buildkit.trace", "moby.image.id"
"""Ids of the reply's messages."""


def asks_for_session(query: Build) -> bool:
    return query.version == "2" and (query.buildid.startswith(PREFIX) or query.remote != "")


async def build(call: Call) -> web.StreamResponse:
    query = call.query_as(Build)
    if query.buildid.startswith(PREFIX):
        return await _uploaded(call, query.buildid.removeprefix(PREFIX))
    if query.remote != REMOTE:
        return await _build(call, query, {})
    async with call.state.build_uploads.taken(query.buildid) as pieces:
        return await _build(call, query, {"": pieces})


async def _uploaded(call: Call, ident: str) -> web.Response:
    async def pieces() -> AsyncGenerator[bytes, None]:
        async for data in call.request.content.iter_chunked(PIECE):
            yield data

    await call.state.build_uploads.offer(ident, pieces)
    return web.Response()


async def _build(call: Call, query: Build, uploads: Mapping[str, Source]) -> web.StreamResponse:
    session = await call.state.build_sessions.get(query.session)
    try:
        plan = plan_of(query, session)
    except FlotaError:
        session.end()  # a client that hears a refusal while it connects may wait for that end
        raise
    said, trace = Said(call.request), Trace(query.buildid or secrets.token_hex(16))

    async def show(status: StatusResponse | None) -> None:
        if status is not None and not query.q:
            await said.say({"id": TRACE, "aux": base64.b64encode(encode(status)).decode()})

    async def tell(message: FromHost) -> None:
        await show(trace.take(message, time.time()))

    place = place_of(query, session)
    wanted = Wanted(call, plan, session, tell, place=place, ident=query.buildid, given=uploads)
    try:
        done = await wanted.run()
        await show(trace.ended("", time.time()))
        await _told(said, done, quiet=query.q)
    except ConnectionError:
        return web.Response(status=499)  # nobody reads it
    except Exception as error:
        await show(trace.ended(words_of(error), time.time()))
        return await said.fail(error)
    return await said.end()


async def _told(said: Said, done: Done, *, quiet: bool) -> None:
    ident = next((built.image for built in done.images if built.image), "")
    if quiet:
        await said.say(stream(f"{ident}\n"))
    elif ident:
        await said.say({"id": IMAGE, "aux": {"ID": ident}})


def plan_of(query: Build, session: BuildSession) -> Plan:
    """Raises InvalidInput, Unsupported."""
    local, remote = query.remote == SESSION, "" if query.remote in (SESSION, REMOTE) else query.remote
    exporters = exporters_of(query.outputs)
    request = request_of(replace(query, remote=remote, outputs=""), {})
    ways = cache_ways(_references(query.cachefrom), request.args)
    names = tuple(dict.fromkeys((*request.names, *names_of(exporters))))
    request = replace(request, names=names, outputs=outputs_of(exporters), outline=False, **ways)
    request = replace(request, **given(session.serves))
    if not local:
        return Plan(request=request)
    return Plan(request=request, dockerfile=Folder(name=DOCKERFILE), folders={"": Folder(name=CONTEXT)})


def _references(text: str) -> tuple[str, ...]:
    try:
        return tuple(msgspec.json.decode(text, type=list[str] | None) or ()) if text else ()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"cachefrom: {error}") from error


def place_of(query: Build, session: BuildSession) -> str:
    """Builds of the same folder go to one host."""
    key = place_key(query)
    return f"{session.shared}:{key}" if query.remote == SESSION and session.shared else key
