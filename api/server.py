"""The HTTP applications of a controller and of a host, made from their route tables.

Invariant: a request reaches a handler only through `dispatch`: identified, allowed by the route's role (the
default is no), its query and body decoded strictly. Every error leaves as an ErrorBody, never as a traceback.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from api.identity import ADMIN, of_connection
from api.listen import heard
from api.openapi import document
from api.ports import ControllerPort, HostPort, Identity
from api.routes.query import parse_query
from api.routes.route import CA, Call, Route
from api.routes.table import CONTROLLER, HOST
from model.codec import decode_strict, encode_json
from model.errors import (
    HTTP_STATUS,
    DeadlineExceeded,
    ErrorBody,
    FlotaError,
    Forbidden,
    Internal,
    InvalidInput,
    NotFound,
    Unauthenticated,
)

log = logging.getLogger("flota.api")
P = TypeVar("P")
Identify = Callable[[web.Request], Identity]
MAX_BODY = 1 << 20
"""Bytes of a JSON body; uploads are streams and not bounded here."""
BODY_SECONDS = 30.0


def controller_app(port: ControllerPort, *, fleet_id: str, ca: str = "") -> web.Application:
    """The fleet's API. `fleet_id` is what client certificates must name, `ca` the PEM that all may read."""
    app = _app(port, CONTROLLER, lambda request: of_connection(request, fleet_id))
    app[CA] = ca
    return app


def host_app(port: HostPort) -> web.Application:
    """One host's own API, for its unix socket and for pipes that its agent dialled to the controller: whoever
    gets through either is an admin."""
    return _app(port, HOST, lambda _: ADMIN)


def runner(app: web.Application, *, line: int = 16384, field: int = 8190) -> web.AppRunner:
    """How flota runs an application: handlers end with their clients, headers are small, no access log."""
    return web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        keepalive_timeout=75.0,
        max_line_size=line,
        max_field_size=field,
        shutdown_timeout=2.0,
    )


def _app(port: P, routes: Iterable[Route[P]], identify: Identify) -> web.Application:
    described = b""

    async def openapi(call: Call[P]) -> web.StreamResponse:
        return web.Response(body=described, content_type="application/json")

    table = (*routes, Route("GET", "/v1/openapi.json", openapi, "This description", reply=dict[str, Any]))
    described = encode_json(document(table))
    app = web.Application(client_max_size=MAX_BODY, middlewares=[_errors])
    for route in table:
        app.router.add_route(
            route.method, route.path, _handler(route, port, identify), expect_handler=answer_expect
        )
    return app


def _handler(
    route: Route[P], port: P, identify: Identify
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def dispatch(request: web.Request) -> web.StreamResponse:
        identity = identify(request)
        allow(route, identity)
        query = parse_query(request.query, route.query)
        body = None if route.kind == "stream" and route.body is None else await _body(request, route)
        call = Call(port=port, identity=identity, request=request, query=query, body=body)
        if route.kind == "command":
            result = await asyncio.shield(route.handler(call))
        else:
            result = await route.handler(call)
        return _reply(result)

    return dispatch


def allow(route: Route[Any], identity: Identity) -> None:
    """Raises Unauthenticated or Forbidden unless the route is for the caller. Admins are no hosts: the routes
    of agents take the host's id from its certificate."""
    if route.role in ("anonymous", identity.role):
        return
    if identity.role == "anonymous":
        raise Unauthenticated(
            "a client certificate is needed",
            hint="Set FLOTA_CREDENTIALS, or use the controller's unix socket",
        )
    raise Forbidden(f"{route.method} {route.path} is not for {identity.role}s")


async def _body(request: web.Request, route: Route[Any]) -> Any:
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise InvalidInput("encoded request bodies are not accepted")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await request.read()
    except TimeoutError as error:
        raise DeadlineExceeded(f"the request body did not arrive within {BODY_SECONDS:g} s") from error
    if route.body is None:
        if data:
            raise InvalidInput("this request takes no body")
        return None
    if not data:
        if route.body_optional:
            return route.body()
        raise InvalidInput("the request body is missing")
    kind = request.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InvalidInput(f"the request body is {kind[:60]!r}, not application/json")
    return decode_strict(data, route.body)


def _reply(result: object) -> web.StreamResponse:
    if isinstance(result, web.StreamResponse):
        return result
    if result is None:
        return web.Response(status=204)
    return web.Response(body=encode_json(result), content_type="application/json")


async def answer_expect(request: web.Request) -> None:
    """Answer `Expect: 100-continue`, so that curl sends its upload at once."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed()
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    heard(request)
    try:
        return await handler(request)
    except FlotaError as error:
        return _error(error)
    except web.HTTPRequestEntityTooLarge:
        too_large = InvalidInput(f"the request body is larger than {MAX_BODY} bytes")
        return _error(too_large, status=413)
    except web.HTTPNotFound:
        return _error(NotFound(f"no such resource: {request.path[:200]}", hint="See GET /v1/openapi.json"))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        wrong = InvalidInput(f"{request.method[:20]} is not a method of {request.path[:200]}: {allowed} are")
        return _error(wrong, status=405)
    except web.HTTPException as error:
        return _error(InvalidInput(error.reason), status=error.status)
    except (HttpProcessingError, UnicodeDecodeError) as error:
        return _error(InvalidInput(f"malformed request: {error}"))
    except ConnectionError:
        return _error(Internal("the client has gone"))
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        hint = "The log of this process has the details"
        return _error(Internal("internal error", hint=hint))


def _error(error: FlotaError, status: int = 0) -> web.Response:
    body = msgspec.json.encode(ErrorBody.of(error))
    status = status or HTTP_STATUS.get(error.code, 500)
    return web.Response(status=status, body=body, content_type="application/json")
