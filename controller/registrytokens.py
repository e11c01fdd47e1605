"""Tokens by which programs that know nothing of the fleet use its registry. Pure, but for `Tokens`.

Invariant: a secret is shown once, when its token is made; only its hash is kept.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from controller.plan import Plan, delete, put
from controller.restoring import Restoring
from controller.snapshot import Cluster
from image.registry.server.access import Caller, Grant
from image.registry.server.grammar import is_name
from model.api import CreateRegistryToken, RegistryTokenCreated
from model.errors import AlreadyExists, InvalidInput, NotFound, Unauthenticated
from model.events import Event
from model.ids import check_name, resolve
from model.records import RegistryToken
from model.registrycopies import RegistryStatus, RepositoryInfo, TagInfo

MARK = "flota-registry-"
MAX_TTL = 10 * 365 * 86400


def new_secret() -> tuple[str, str]:
    """(what to show once, its hash). It has 128 random bits, so one round of SHA-256 is enough."""
    secret = MARK + secrets.token_hex(16)
    return secret, secret_hash(secret)


def secret_hash(secret: str) -> str:
    return hashlib.sha256(f"flota-registry/{secret}".encode()).hexdigest()


def create(cluster: Cluster, request: CreateRegistryToken, *, ident: str, digest: str, now: float) -> Plan:
    """Raises InvalidInput, AlreadyExists."""
    check_name("token", request.name)
    if request.prefix and not is_name(request.prefix):
        hint = "Write for example team or team/app, without a slash at the end"
        raise InvalidInput(f"prefix {request.prefix[:80]!r} is no repository's name", hint=hint)
    if not 0 <= request.ttl <= MAX_TTL:
        raise InvalidInput(f"invalid time to live {request.ttl:g} s", hint="0 means without end")
    if any(token.name == request.name for token in cluster.registry_tokens.values()):
        hint = "Remove it first: flota registry token rm"
        raise AlreadyExists(f"a token of the registry is called {request.name} already", hint=hint)
    token = RegistryToken(
        id=ident,
        name=request.name,
        secret_hash=digest,
        scope=request.scope,
        prefix=request.prefix,
        created_at=now,
        expires_at=now + request.ttl if request.ttl else 0.0,
    )
    return Plan(
        items=(put(token, "it was asked for"),), events=(_event(token, "token-create", now),), subject=ident
    )


def remove(cluster: Cluster, ref: str, now: float) -> Plan:
    """Raises NotFound, Ambiguous."""
    tokens = cluster.registry_tokens
    token = tokens[resolve("registry token", ref, [(t.id, t.name) for t in tokens.values()])]
    return Plan(
        items=(delete(token, "it was removed by hand"),), events=(_event(token, "token-remove", now),)
    )


def caller_of(cluster: Cluster, token: RegistryToken | None, now: float) -> Caller:
    """What a token lets do. Raises Unauthenticated for none, or one that is over."""
    if token is None or token.id not in cluster.registry_tokens:
        hint = "Make one: flota registry token create"
        raise Unauthenticated("this login of the registry is not known", hint=hint)
    if token.expires_at and token.expires_at <= now:
        raise Unauthenticated(f"the token {token.name} has expired", hint="flota registry token create")
    return Caller(name=token.name, grants=(Grant(action=token.scope, prefix=token.prefix),))


def with_secret(cluster: Cluster, secret: str) -> RegistryToken | None:
    digest = secret_hash(secret)
    return next((t for t in cluster.registry_tokens.values() if t.secret_hash == digest), None)


def _event(token: RegistryToken, action: str, now: float) -> Event:
    return Event(type="registry", action=action, id=token.id, name=token.name, at=now)


class Served(Protocol):
    """What a registry that is served tells of itself."""

    async def status(self, address: str) -> RegistryStatus: ...

    async def repositories(self) -> Sequence[RepositoryInfo]: ...

    async def tags(self, repository: str, host: str) -> Sequence[TagInfo]: ...

    async def remove(self, ref: str, host: str) -> None: ...


class Tokens(Restoring):
    """The registry's part of `api.ports.ControllerPort`."""

    registry: Served | None = None
    """Where it is served, once it is."""

    async def registry_status(self) -> RegistryStatus:
        """Of an empty address where the fleet has none."""
        if self.registry is None:
            return RegistryStatus(address="")
        return await self.registry.status(self.options.registry)

    async def list_repositories(self) -> Sequence[RepositoryInfo]:
        """Raises NotFound where the fleet has no registry, as do those below."""
        return await self._served().repositories()

    async def list_repository_tags(self, repository: str) -> Sequence[TagInfo]:
        return await self._served().tags(repository, self.options.registry)

    async def remove_registry_manifest(self, ref: str) -> None:
        await self._served().remove(ref, self.options.registry)

    def _served(self) -> Served:
        if self.registry is None:
            raise NotFound("the fleet serves no registry", hint="flota controller --registry PORT")
        return self.registry

    async def create_registry_token(self, request: CreateRegistryToken) -> RegistryTokenCreated:
        secret, digest = new_secret()
        ident, now = self.ids(), self.clock.now()
        await self._command(lambda c: create(c, request, ident=ident, digest=digest, now=now))
        return RegistryTokenCreated(
            token=_shown(self.snapshot().registry_tokens[ident]),
            secret=secret,
            registry=self.options.registry,
        )

    def list_registry_tokens(self) -> Sequence[RegistryToken]:
        found = self.snapshot().registry_tokens.values()
        return [_shown(token) for token in sorted(found, key=lambda token: token.name)]

    async def remove_registry_token(self, ref: str) -> None:
        await self._command(lambda c: remove(c, ref, self.clock.now()))


def _shown(token: RegistryToken) -> RegistryToken:
    """Without what nobody needs to see."""
    return replace(token, secret_hash="")
