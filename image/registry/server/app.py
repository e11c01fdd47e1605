"""The registry's HTTP application: who asks, whether he may, and the handler of each end point.

Invariant: nothing of a repository is read or changed before `may` has said yes; every error leaves in the
distribution specification's form.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from image.registry.server import blobs, listing, manifests, pushing
from image.registry.server.access import Caller, may, needed
from image.registry.server.call import Call
from image.registry.server.grammar import METHODS, Kind, Target, parse
from image.registry.server.refusal import Refusal, refusal_of
from image.registry.server.registry import Registry
from model.errors import FlotaError

log = logging.getLogger("flota.registry")
Identify = Callable[[web.Request], Caller]
"""Who asks; raises Unauthenticated or Forbidden where what he shows is not good."""
Challenge = Callable[[web.Request], str]
"""The WWW-Authenticate header of a 401."""
Handler = Callable[[Call], Awaitable[web.StreamResponse]]

HANDLERS: dict[tuple[Kind, str], Handler] = {
    ("base", "GET"): listing.base,
    ("base", "HEAD"): listing.base,
    ("catalog", "GET"): listing.catalog,
    ("tags", "GET"): listing.tags,
    ("referrers", "GET"): listing.referrers,
    ("blob", "GET"): blobs.get,
    ("blob", "HEAD"): blobs.get,
    ("blob", "DELETE"): blobs.delete,
    ("uploads", "POST"): pushing.begin,
    ("upload", "GET"): pushing.status,
    ("upload", "PATCH"): pushing.patch,
    ("upload", "PUT"): pushing.put,
    ("upload", "DELETE"): pushing.cancel,
    ("manifest", "GET"): manifests.get,
    ("manifest", "HEAD"): manifests.get,
    ("manifest", "PUT"): manifests.put,
    ("manifest", "DELETE"): manifests.delete,
}


def basic_challenge(request: web.Request) -> str:
    del request
    return 'Basic realm="flota"'


def registry_app(
    registry: Registry,
    identify: Identify,
    *,
    challenge: Challenge = basic_challenge,
    middlewares: Sequence[Any] = (),
    routes: Sequence[web.RouteDef] = (),
) -> web.Application:
    """`routes` are end points beside the specification's."""
    app = web.Application(middlewares=[*middlewares, _errors(challenge)])

    async def dispatch(request: web.Request) -> web.StreamResponse:
        caller = identify(request)
        target = parse(request.rel_url.path)
        method = request.method
        if method not in METHODS[target.kind]:
            allowed = ", ".join(METHODS[target.kind])
            words = f"{method[:20]} is no method of this: {allowed} are"
            raise Refusal("UNSUPPORTED", words, headers={"Allow": allowed})
        _check(caller, target, method)
        return await HANDLERS[target.kind, method](Call(registry, caller, target, request))

    app.router.add_routes(routes)
    app.router.add_route("*", "/{path:.*}", dispatch)
    return app


def _check(caller: Caller, target: Target, method: str) -> None:
    """Raises Refusal."""
    action = needed(target, method)
    allowed = bool(caller.grants) if action is None else may(caller, action, target.name)
    if allowed:
        return
    if caller.anonymous:
        raise Refusal("UNAUTHORIZED", "a login is needed", hint="Make one: flota registry token create")
    words = f"{caller.name} may not {action or 'use'} {target.name or 'this registry'}"
    raise Refusal("DENIED", words, hint="See `flota registry token create --help`")


def _errors(challenge: Challenge) -> Any:
    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except FlotaError as error:
            refusal = refusal_of(error)
        except web.HTTPException as error:
            refusal = Refusal("UNSUPPORTED", error.reason, status=error.status)
        except (HttpProcessingError, UnicodeDecodeError) as error:
            refusal = Refusal("UNSUPPORTED", f"malformed request: {error}", status=400)
        except ConnectionError:
            refusal = Refusal("UNKNOWN", "the client has gone")
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            refusal = Refusal("UNKNOWN", "internal error", hint="The log of the controller has the details")
        return _answer(request, refusal, challenge)

    return middleware


def _answer(request: web.Request, refusal: Refusal, challenge: Challenge) -> web.Response:
    headers = {"Docker-Distribution-Api-Version": "registry/2.0", **refusal.headers}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = challenge(request)
    return web.Response(
        status=refusal.status, body=refusal.body(), content_type="application/json", headers=headers
    )
