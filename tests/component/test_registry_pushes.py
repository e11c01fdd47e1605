"""Pushing to a registry: what is sent, in which order, what a break costs, and what is refused."""

from __future__ import annotations

import gzip
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from image.manifest import Descriptor
from image.reference import parse
from image.registry.client import RegistryClient
from image.registry.source import Blob, Outgoing
from model.errors import Damaged, Unauthenticated, Unavailable
from model.image import Progress
from model.registries import Login
from tests.support.images import MANIFEST, Built, image, member, tar
from tests.support.registry import FakeRegistry, serving

NOISE = os.urandom(3 << 20)
LAYERS = [tar(member("a", NOISE)), tar(member("b", b"small"))]
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


@pytest.fixture
def built() -> Built:
    return image(LAYERS)


@pytest.fixture
def outgoing(tmp_path: Path, registry: FakeRegistry, built: Built) -> Callable[..., Outgoing]:
    def made(name: str = "team/app:1", mounts: tuple[str, ...] = ()) -> Outgoing:
        layers = []
        for digest, data in built.blobs.items():
            if digest != built.id:
                path = tmp_path / digest[7:]
                path.write_bytes(data)
                layers.append(Blob(descriptor=Descriptor(digest=digest, size=len(data)), path=path))
        return Outgoing(
            reference=parse(f"{registry.host}/{name}"),
            manifest=built.manifest,
            media_type=MANIFEST,
            config=built.config,
            layers=tuple(layers),
            mounts=mounts,
        )

    return made


def sent(registry: FakeRegistry, *kinds: str) -> list[str]:
    return [f"{method} {path}" for method, path in registry.acts if method in kinds]


async def test_push_gives_the_registry_all_of_the_image_with_its_own_digest(
    client: RegistryClient, registry: FakeRegistry, built: Built, outgoing: Callable[..., Outgoing]
) -> None:
    lines: list[Progress] = []
    assert await client.push(outgoing(), say=lines.append) == built.digest
    assert registry.blobs == built.blobs
    assert registry.manifests["1"] == (MANIFEST, built.manifest)
    assert sent(registry, "PUT")[-1] == "PUT /v2/team/app/manifests/1"
    assert [line.status for line in lines].count("Pushed") == 2


async def test_push_sends_nothing_that_is_there(
    client: RegistryClient, registry: FakeRegistry, outgoing: Callable[..., Outgoing]
) -> None:
    await client.push(outgoing())
    registry.acts.clear()
    lines: list[Progress] = []
    await client.push(outgoing("team/app:2"), say=lines.append)
    assert sent(registry, "POST", "PATCH") == []
    assert [line.status for line in lines].count("Layer already exists") == 2
    assert "2" in registry.manifests


async def test_push_mounts_from_a_repository_that_has_the_layers(
    client: RegistryClient, registry: FakeRegistry, outgoing: Callable[..., Outgoing]
) -> None:
    registry.mountable.add("base/app")
    lines: list[Progress] = []
    await client.push(outgoing(mounts=("base/app",)), say=lines.append)
    assert [line.status for line in lines].count("Mounted from base/app") == 2
    assert len(sent(registry, "PATCH")) == 1  # the configuration


async def test_push_uploads_where_a_mount_is_declined(
    client: RegistryClient, registry: FakeRegistry, built: Built, outgoing: Callable[..., Outgoing]
) -> None:
    await client.push(outgoing(mounts=("base/app",)))
    assert registry.blobs == built.blobs
    assert len(sent(registry, "POST")) == 3


async def test_push_that_breaks_goes_on_where_it_broke(
    client: RegistryClient, registry: FakeRegistry, built: Built, outgoing: Callable[..., Outgoing]
) -> None:
    registry.drop_after = [1 << 20, 1 << 20]
    await client.push(outgoing())
    assert registry.blobs == built.blobs
    assert len(sent(registry, "POST")) == 3  # nothing was begun twice
    assert registry.received < sum(map(len, built.blobs.values())) + (2 << 20)


async def test_push_begins_anew_where_the_registry_has_forgotten(
    client: RegistryClient, registry: FakeRegistry, built: Built, outgoing: Callable[..., Outgoing]
) -> None:
    registry.drop_after, registry.forgets = [1 << 20], True
    await client.push(outgoing())
    assert registry.blobs == built.blobs
    assert len(sent(registry, "POST")) == 4


async def test_push_that_never_gets_on_ends(
    client: RegistryClient, registry: FakeRegistry, outgoing: Callable[..., Outgoing]
) -> None:
    registry.drop_after = [0] * 100
    with pytest.raises(Unavailable):
        await client.push(outgoing())
    assert registry.manifests == {}


async def test_push_of_a_layer_that_rotted_on_disk_leaves_no_tag(
    client: RegistryClient, registry: FakeRegistry, outgoing: Callable[..., Outgoing]
) -> None:
    image = outgoing()
    data = bytearray(image.layers[0].path.read_bytes())
    data[len(data) // 2] ^= 1
    image.layers[0].path.write_bytes(data)
    with pytest.raises(Damaged, match="does not match its digest any more"):
        await client.push(image)
    assert registry.manifests == {}


async def test_push_of_a_layer_that_lost_bytes_is_refused_here(
    client: RegistryClient, registry: FakeRegistry, outgoing: Callable[..., Outgoing]
) -> None:
    image = outgoing()
    os.truncate(image.layers[0].path, 10)
    with pytest.raises(Damaged, match="another size"):
        await client.push(image)
    assert registry.manifests == {}


async def test_push_logs_in_and_asks_for_what_it_needs(
    client: RegistryClient, registry: FakeRegistry, outgoing: Callable[..., Outgoing]
) -> None:
    registry.token, registry.login = "t0k3n", ("ada", "secret")
    await client.push(outgoing(mounts=("base/app",)), ADA)
    assert len(registry.asked("/token")) == 1
    scopes = registry.scopes[0]
    assert "repository:team/app:pull,push" in scopes and "repository:base/app:pull" in scopes


async def test_push_by_an_identity_token_buys_tokens_with_it(
    client: RegistryClient, registry: FakeRegistry, outgoing: Callable[..., Outgoing]
) -> None:
    registry.token, registry.identity = "t0k3n", "refresh-me"
    await client.push(outgoing(), Login(identity="refresh-me"))
    assert "1" in registry.manifests
    with pytest.raises(Unauthenticated):
        await client.push(outgoing("team/app:2"), Login(identity="another"))


async def test_push_without_a_login_is_said_to_be_denied(
    client: RegistryClient, registry: FakeRegistry, outgoing: Callable[..., Outgoing]
) -> None:
    registry.login = ("ada", "secret")
    with pytest.raises(Unauthenticated, match="flota login"):
        await client.push(outgoing())
    assert registry.blobs == {}


def test_layers_of_the_fixture_are_not_trivial(built: Built) -> None:
    assert max(map(len, built.blobs.values())) > 2 << 20
    assert all(gzip.decompress(data) for digest, data in built.blobs.items() if digest != built.id)
