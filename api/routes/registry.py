"""Routes of the fleet's registry: its logins, and what is to be told of it. Its content is spoken for at
its own port."""

from __future__ import annotations

from api.routes import query as q
from api.routes.route import ControllerCall
from model.api import CreateRegistryToken, RegistryTokenCreated
from model.records import RegistryToken
from model.registrycopies import RegistryStatus, RepositoryInfo, TagInfo


async def status(call: ControllerCall) -> RegistryStatus:
    return await call.port.registry_status()


async def repositories(call: ControllerCall) -> list[RepositoryInfo]:
    return list(await call.port.list_repositories())


async def tags(call: ControllerCall) -> list[TagInfo]:
    return list(await call.port.list_repository_tags(call.query_as(q.Repository).repository))


async def remove_manifest(call: ControllerCall) -> None:
    await call.port.remove_registry_manifest(call.query_as(q.Manifest).ref)


async def create_token(call: ControllerCall) -> RegistryTokenCreated:
    return await call.port.create_registry_token(call.body_as(CreateRegistryToken))


async def list_tokens(call: ControllerCall) -> list[RegistryToken]:
    return list(call.port.list_registry_tokens())


async def remove_token(call: ControllerCall) -> None:
    await call.port.remove_registry_token(call.ref())
