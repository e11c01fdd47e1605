"""The Docker API as an HTTP application, made from its route table.

Invariant: a request reaches a handler only through `dispatch`: identified, allowed, its query and body
decoded by the types of its route. Every reply carries the API's version; every error is `{"message": …}`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from api.docker.bodies import decode
from api.docker.errors import Refusal, told
from api.docker.parameters import parse_query
from api.docker.ports import DockerPort
from api.docker.route import Call, Route
from api.docker.state import State
from api.docker.table import ROUTES
from api.docker.unserved import refuse
from api.docker.versions import NEWEST, Version, split, text
from api.hijack import asks_for
from api.identity import of_connection
from api.listen import heard
from api.ports import Identity
from api.server import answer_expect, runner
from model.codec import encode_json
from model.errors import DeadlineExceeded, FlotaError, Forbidden, Internal, InvalidInput, Unauthenticated
from model.version import VERSION

log = logging.getLogger("flota.api")
Identify = Callable[[web.Request], Identity]
UPGRADES = ("tcp", "h2c")
MAX_BODY = 4 << 20
"""Bytes of a JSON body; uploads are streams and not bounded here."""
BODY_SECONDS = 30.0
MAX_LINE = 1 << 18
"""Bytes of a request's first line: arguments and labels of builds are in it."""
MAX_FIELD = 1 << 16
"""Bytes of a header: a build's logins at all registries are one."""
BESIDE_NATIVE = r"/{path:(?!v1/)[\s\S]*}"
OURS = web.RequestKey("docker", bool)
HEADERS = {
    "Api-Version": text(NEWEST),
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"Docker/{VERSION} (linux)",
}


def docker_app(
    port: DockerPort, identify: Identify, state: State, routes: Sequence[Route] = ROUTES
) -> web.Application:
    """The API alone, for a socket of its own."""
    app = web.Application(client_max_size=MAX_BODY)
    add_docker(app, port, identify, state, path=r"/{path:[\s\S]*}", routes=routes)
    return app


def docker_runner(
    port: DockerPort, identify: Identify, state: State, routes: Sequence[Route] = ROUTES
) -> web.AppRunner:
    """How it is run."""
    return runner(docker_app(port, identify, state, routes), line=MAX_LINE, field=MAX_FIELD)


def fleet_identity(fleet_id: str) -> Identify:
    """`fleet_id` is what client certificates must name."""
    return lambda request: of_connection(request, fleet_id)


def add_docker(
    app: web.Application,
    port: DockerPort,
    identify: Identify,
    state: State,
    path: str = BESIDE_NATIVE,
    routes: Sequence[Route] = ROUTES,
) -> None:
    """Serve it on an application, by default on one that serves the native API too: their paths differ.
    `routes`: a fleet's, or a host's."""

    async def handle(request: web.Request) -> web.StreamResponse:
        heard(request)
        request[OURS] = True
        response = await _told(request, lambda: _dispatch(request, routes, port, state, identify))
        if any(asks_for(request, one) for one in UPGRADES) and not response.prepared:
            response.force_close()  # what follows a request to upgrade is no request
        return response

    app.on_response_prepare.append(_with_headers)
    app.router.add_route("*", path, handle, expect_handler=answer_expect)


async def _with_headers(request: web.Request, response: web.StreamResponse) -> None:
    if request.get(OURS):
        response.headers.update(HEADERS)


async def _dispatch(
    request: web.Request, routes: Sequence[Route], port: DockerPort, state: State, identify: Identify
) -> web.StreamResponse:
    identity = identify(request)
    version, path = split(request.path)
    route, found = _route(routes, request.method, path, version)
    _allow(route, identity)
    call = Call(
        port=port,
        state=state,
        identity=identity,
        request=request,
        version=version,
        path=found,
        query=parse_query(request.query, route.query),
        body=await _body(request, route),
    )
    if route.kind == "command":
        return _reply(await asyncio.shield(route.handler(call)))
    return _reply(await route.handler(call))


def _route(routes: Sequence[Route], method: str, path: str, version: Version) -> tuple[Route, dict[str, str]]:
    """The first that fits, and what its path says. Raises Refusal, as Docker for a path or a method that it
    does not know."""
    for route in routes:
        found = route.match(method, path, version)
        if found is not None:
            return route, found
    refuse(path)
    raise Refusal(404, "page not found")


def _allow(route: Route, identity: Identity) -> None:
    """Raises Unauthenticated or Forbidden: hosts have no business here."""
    if identity.role == route.role:
        return
    if identity.role == "anonymous":
        raise Unauthenticated(
            "a client certificate is needed", hint="Set DOCKER_CERT_PATH and DOCKER_TLS_VERIFY"
        )
    raise Forbidden(f"{route.method} {route.path} is not for {identity.role}s")


async def _body(request: web.Request, route: Route) -> Any:
    """None for a route that takes none: Docker reads nothing there, and a stream reads it itself."""
    if route.body is None:
        return None
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise InvalidInput("encoded request bodies are not accepted")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await _read(request)
    except TimeoutError as error:
        raise DeadlineExceeded(f"the request body did not arrive within {BODY_SECONDS:g} s") from error
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if data and kind != "application/json":
        raise InvalidInput(f"unsupported Content-Type header ({kind[:60]}): must be 'application/json'")
    if not data and not route.body.optional:
        raise InvalidInput("the request body is missing")
    return decode(data, route.body)


async def _read(request: web.Request) -> bytes:
    """Raises Refusal beyond MAX_BODY."""
    data = bytearray()
    async for chunk in request.content.iter_any():
        data += chunk
        if len(data) > MAX_BODY:
            raise Refusal(413, f"the request body is larger than {MAX_BODY} bytes")
    return bytes(data)


def _reply(result: object) -> web.StreamResponse:
    if isinstance(result, web.StreamResponse):
        return result
    if result is None:
        return web.Response(status=204)
    return web.Response(body=encode_json(result), content_type="application/json")


async def _told(
    request: web.Request, handle: Callable[[], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What it answers; a failure in Docker's form."""
    try:
        return await handle()
    except Refusal as refusal:
        return _error(refusal.status, refusal.message)
    except FlotaError as error:
        return _error(*told(error))
    except web.HTTPException as error:
        return _error(error.status, error.reason)
    except (HttpProcessingError, UnicodeDecodeError) as error:
        return _error(400, f"malformed request: {error}")
    except ConnectionError:
        return _error(500, "the client has gone")
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _error(*told(Internal("internal error", hint="The log of this process has the details")))


def _error(status: int, message: str) -> web.Response:
    if status == 304:
        return web.Response(status=304)
    return web.Response(
        status=status, body=encode_json({"message": message}), content_type="application/json"
    )
