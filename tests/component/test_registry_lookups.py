"""What a registry is asked as a whole: whether it takes a login, and which images it has."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from image.reference import parse
from image.registry.client import RegistryClient
from image.registry.lookups import PAGE
from model.errors import NotFound, Unauthenticated, Unavailable, Unsupported
from model.registries import NOBODY, Login
from tests.support.registry import FakeRegistry, serving

ADA = Login(user="ada", password="secret")


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with serving(FakeRegistry()) as served:
        yield served


@pytest.fixture
async def client() -> AsyncIterator[RegistryClient]:
    client = RegistryClient()
    yield client
    await client.close()


async def test_login_is_tried_by_password_and_by_token(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    registry.login = ("ada", "secret")
    await client.check_login(registry.host, ADA)
    registry.token = "t0k3n"
    await client.check_login(f"http://{registry.host}/v2/", ADA)
    assert registry.scopes == [["repository:app:pull"]]


@pytest.mark.parametrize("token", ["", "t0k3n"])
async def test_login_that_is_refused_is_said_to_be_wrong(
    client: RegistryClient, registry: FakeRegistry, token: str
) -> None:
    registry.login, registry.token = ("ada", "secret"), token
    with pytest.raises(Unauthenticated, match="password is wrong"):
        await client.check_login(registry.host, Login(user="ada", password="other"))


@pytest.mark.parametrize("token", ["", "t0k3n"])
async def test_login_is_tried_though_nobody_asks_for_it(
    client: RegistryClient, registry: FakeRegistry, token: str
) -> None:
    registry.login, registry.token, registry.open = ("ada", "secret"), token, True
    await client.check_login(registry.host, ADA)
    with pytest.raises(Unauthenticated, match="password is wrong"):
        await client.check_login(registry.host, Login(user="ada", password="other"))
    registry.login, registry.token = None, ""
    await client.check_login(registry.host, ADA)


async def test_server_that_is_no_registry_is_told(client: RegistryClient, registry: FakeRegistry) -> None:
    registry.statuses = [404]
    with pytest.raises(Unavailable, match="is no registry"):
        await client.check_login(registry.host, ADA)


async def test_search_reads_page_after_page(client: RegistryClient, registry: FakeRegistry) -> None:
    registry.names = [f"team/app-{number:05}" for number in range(2 * PAGE + 5)]
    found = await client.search(f"{registry.host}/app-0200", 25, NOBODY)
    assert [one.name for one in found] == [f"{registry.host}/team/app-{n:05}" for n in range(2000, 2005)]
    assert len(registry.asked("_catalog")) == 3
    assert len(await client.search(f"{registry.host}/app", 7, NOBODY)) == 7


async def test_search_of_a_registry_that_tells_nobody_says_so(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    with pytest.raises(Unsupported, match="tells nobody which images"):
        await client.search(f"{registry.host}/app", 25, NOBODY)
    registry.login = ("ada", "secret")
    with pytest.raises(Unsupported):
        await client.search(f"{registry.host}/app", 25, NOBODY)


async def test_tags_are_read_page_after_page(client: RegistryClient, registry: FakeRegistry) -> None:
    registry.names = [f"t{number:05}" for number in range(PAGE + 3)]
    assert list(await client.tags(parse(f"{registry.host}/app"), NOBODY)) == registry.names
    registry.names = []
    with pytest.raises(NotFound):
        await client.tags(parse(f"{registry.host}/app"), NOBODY)


async def test_pages_shorter_than_asked_for_are_followed_at_the_same_registry(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    registry.names, registry.shortest = [f"t{number:02}" for number in range(25)], 10
    assert list(await client.tags(parse(f"{registry.host}/app"), NOBODY)) == registry.names
    assert len(await client.search(f"{registry.host}/t", 25, NOBODY)) == 25
