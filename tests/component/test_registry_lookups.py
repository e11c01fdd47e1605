"""What a registry is asked as a whole: whether it takes a login, and which images it has."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from image.reference import parse
from image.registry.client import RegistryClient
from image.registry.lookups import MAX_TAGS, PAGE, PAGES, hits
from model.errors import Exhausted, NotFound, Unauthenticated, Unavailable, Unsupported
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


async def test_tags_of_very_short_pages_are_all_read(client: RegistryClient, registry: FakeRegistry) -> None:
    registry.names, registry.shortest = [f"t{number:03}" for number in range(3 * PAGES)], 2
    assert list(await client.tags(parse(f"{registry.host}/app"), NOBODY)) == registry.names


async def test_tags_without_end_are_refused(client: RegistryClient, registry: FakeRegistry) -> None:
    registry.names, registry.shortest = [f"t{number:06}" for number in range(MAX_TAGS + PAGE)], 30_000
    with pytest.raises(Exhausted, match=f"more tags of app than {MAX_TAGS}"):
        await client.tags(parse(f"{registry.host}/app"), NOBODY)
    assert len(registry.asked("/tags/list")) == 4


async def test_search_takes_no_more_of_a_page_than_was_asked_for(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    registry.names, registry.shortest = [f"t{number:06}" for number in range(50_000)], 50_000
    assert len(await client.search(f"{registry.host}/t", 3, NOBODY)) == 3


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"results": [1]}', b"[" * 100_000, b"\xff"])
def test_search_of_the_hub_that_another_answers_is_told(data: bytes) -> None:
    with pytest.raises(Unavailable, match="answered with nonsense") as caught:
        hits(data, 25)
    assert "\n" not in str(caught.value)


def test_search_of_the_hub_gives_what_it_found_up_to_the_limit() -> None:
    found = hits(b'{"results": [{"name": "a", "star_count": 3, "is_official": true}, {"name": "b"}]}', 1)
    assert [(one.name, one.stars, one.official) for one in found] == [("a", 3, True)]
