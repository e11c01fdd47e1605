"""The fleet's registry, served by the controller: its port, its TLS, and who may use it.

Invariant: a caller is known by the certificate of its connection, or by the secret of a token, looked up anew
for each request: what is taken back ends at once. Without either only pulling is possible, and only where the
fleet's owner has switched that on.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from aio.clock import Clock
from api.identity import of_connection
from api.listen import heard, serve_tls
from api.server import runner
from controller.commands.hosts import disowned
from controller.controller import Controller
from controller.registrycopies import Copies
from controller.registrytokens import caller_of, with_secret
from image.registry.server.access import Caller, Grant
from image.registry.server.app import basic_challenge, registry_app
from image.registry.server.limits import Limits
from image.registry.server.registry import opened
from model.errors import Forbidden, Unauthenticated
from model.ids import HostId

TOKEN_PATH = "/token"  # noqa: S105 (a path)
TOKEN_LIFE = 300
"""Seconds that a bearer token is good for."""
ANYBODY = Grant(action="pull")


class Gate:
    """Who asks. `anonymous_pull`: whoever can connect may pull."""

    def __init__(self, controller: Controller, clock: Clock, *, anonymous_pull: bool) -> None:
        self._controller = controller
        self._clock = clock
        self._anonymous_pull = anonymous_pull
        self._key = secrets.token_bytes(32)

    def caller(self, request: web.Request) -> Caller:
        """Raises Unauthenticated, Forbidden."""
        scheme, _, word = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            return self._with_login(word)[0]
        if scheme.lower() == "bearer":
            return self._with_bearer(word.strip())
        if scheme:
            raise Unauthenticated("log in by Basic or Bearer")
        return self._with_certificate(request)

    def _with_certificate(self, request: web.Request) -> Caller:
        cluster = self._controller.snapshot()
        identity = of_connection(request, self._controller.info().fleet_id)
        if identity.role == "admin":
            return Caller(name=f"user {identity.id or 'admin'}", grants=(Grant(action="delete"),))
        if identity.role == "host":
            host = cluster.hosts.get(HostId(identity.id))
            if host is None:
                raise Forbidden("this host is not in the fleet (any more)")
            if why := disowned(host, identity.certificate):
                raise Forbidden(why)
            return Caller(name=f"host {host.spec.name}", grants=(Grant(action="push"),))
        asks_only = request.path.rstrip("/") != "/v2"  # clients learn there how to log in
        grants = (ANYBODY,) if self._anonymous_pull and asks_only else ()
        return Caller(name="an anonymous client", grants=grants, anonymous=True)

    def _with_login(self, word: str) -> tuple[Caller, str]:
        """And the id of the token."""
        try:
            _, colon, secret = base64.b64decode(word, validate=True).decode().partition(":")
        except ValueError:  # not Base64, not even ASCII, no UTF-8 in it
            colon = secret = ""
        if not colon:
            raise Unauthenticated("the login can't be read")
        cluster = self._controller.snapshot()
        token = with_secret(cluster, secret)
        return caller_of(cluster, token, self._clock.now()), token.id if token else ""

    def host(self, request: web.Request) -> HostId:
        """Whose copy this is about: only hosts keep any. Raises Forbidden."""
        identity = of_connection(request, self._controller.info().fleet_id)
        found = self._controller.snapshot().hosts.get(HostId(identity.id))
        if identity.role != "host" or found is None:
            raise Forbidden("only hosts of the fleet keep copies of its registry")
        if why := disowned(found, identity.certificate):
            raise Forbidden(why)
        return found.id

    # -- bearer tokens, for anonymous pulls by clients that log in everywhere ---------------------------
    def challenge(self, request: web.Request) -> str:
        """The plain one, unless there are anonymous pulls: clients whose user has no login take a Basic
        challenge for a refusal; from a token service they get a token for nobody."""
        if not self._anonymous_pull:
            return basic_challenge(request)
        host = request.headers.get("Host", "")
        safe = "".join(c for c in host if c.isalnum() or c in ".:[]-")
        return f'Bearer realm="https://{safe}{TOKEN_PATH}",service="flota"'

    async def issue(self, request: web.Request) -> web.Response:
        """Docker's token authentication ("Token Authentication Specification"): who is logged in gets a token
        that says so, who is not one for nobody. What it lets do is decided when it is used."""
        if not self._anonymous_pull:
            raise web.HTTPNotFound()
        scheme, _, word = request.headers.get("Authorization", "").partition(" ")
        ident = self._with_login(word)[1] if scheme.lower() == "basic" else ""
        token = self._signed(ident, int(self._clock.now()) + TOKEN_LIFE)
        return web.json_response({"token": token, "access_token": token, "expires_in": TOKEN_LIFE})

    def _signed(self, ident: str, expires: int) -> str:
        body = base64.urlsafe_b64encode(json.dumps([ident, expires]).encode()).decode().rstrip("=")
        return f"{body}.{self._signature(body)}"

    def _signature(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()

    def _with_bearer(self, token: str) -> Caller:
        body, _, signature = token.partition(".")
        if not token.isascii() or not hmac.compare_digest(signature.encode(), self._signature(body).encode()):
            raise Unauthenticated("the token is none of this registry, or of before it was started")
        ident, expires = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        now = self._clock.now()
        if expires <= now:
            raise Unauthenticated("the token has expired")
        if not ident:
            return Caller(name="an anonymous client", grants=(ANYBODY,) if self._anonymous_pull else ())
        cluster = self._controller.snapshot()
        return caller_of(cluster, cluster.registry_tokens.get(ident), now)


@contextlib.asynccontextmanager
async def serving(
    folder: Path,
    controller: Controller,
    clock: Clock,
    *,
    listen: str,
    port: int,
    context: ssl.SSLContext,
    anonymous_pull: bool,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    replicas: int = 0,
    own: frozenset[str] = frozenset(),
) -> AsyncIterator[Copies]:
    """`replicas` hosts keep a copy of what it holds, none of those at an address of `own`. Raises
    AlreadyExists when the port is in use, and as `opened`."""
    gate = Gate(controller, clock, anonymous_pull=anonymous_pull)
    async with opened(folder, clock, limits) as registry:
        authority = controller.authority
        copies = Copies(
            registry,
            clock,
            controller.snapshot,
            gate.host,
            seal=authority.seal,
            unseal=authority.unseal,
            number=replicas,
            own=own,
        )
        await copies.open()
        app = runner(
            registry_app(
                registry,
                gate.caller,
                challenge=gate.challenge,
                middlewares=[_heard],
                routes=[web.get(TOKEN_PATH, gate.issue), *copies.routes()],
            )
        )
        await app.setup()
        try:
            await serve_tls(app, listen, port, context)
            yield copies
        finally:
            await app.cleanup()


@web.middleware
async def _heard(request: web.Request, handler: web.RequestHandler) -> web.StreamResponse:
    heard(request)
    return await handler(request)  # type: ignore[operator,no-any-return]
