"""Pulling from a registry: what is verified, retried, resumed, and refused."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from image.reference import parse
from image.registry.client import RegistryClient
from image.registry.source import Remote
from model.errors import Damaged, NotFound, Unauthenticated, Unavailable, Unsupported
from model.registries import Login
from model.status import Platform
from tests.support.images import digest, image, index, member, tar
from tests.support.registry import FakeRegistry, serving

AMD64 = Platform(os="linux", arch="amd64")
ADA = Login(user="ada", password="secret")
LAYER = tar(member("bin/tool", bytes(range(256)) * 4096))


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    fake = FakeRegistry()
    fake.push(image([LAYER]), "1")
    async with serving(fake) as served:
        yield served


@pytest.fixture
async def client() -> AsyncIterator[RegistryClient]:
    client = RegistryClient()
    yield client
    await client.close()


async def resolve(client: RegistryClient, registry: FakeRegistry, name: str = "app:1") -> Remote:
    return await client.resolve(parse(f"{registry.host}/{name}"), AMD64, ADA)


async def fetch(client: RegistryClient, remote: Remote, path: Path) -> bytes:
    sizes: list[int] = []
    await client.download(remote, remote.layers[0], path, sizes.append)
    assert sizes[-1] == remote.layers[0].size
    return path.read_bytes()


async def test_resolve_gives_the_verified_documents_and_pins_the_digest(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    built = image([LAYER])
    remote = await resolve(client, registry)
    assert (remote.config, len(remote.layers)) == (built.config, 1)
    assert remote.pinned == f"{registry.host}/app@{built.digest}"


async def test_resolve_of_an_index_takes_the_platform_and_pins_the_index(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    ours, other = image([LAYER]), image([LAYER], arch="arm64")
    registry.push(ours, "ours")
    registry.push(other, "other")
    both = index((other, "arm64"), (ours, "amd64"))
    registry.push_index(both, "both")
    remote = await resolve(client, registry, "app:both")
    assert remote.config == ours.config
    assert remote.pinned.endswith(digest(both))


async def test_resolve_without_our_platform_names_those_there_are(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    registry.push_index(index((image([LAYER], arch="arm64"), "arm64")), "arm")
    with pytest.raises(Unsupported, match=r"only for linux/arm64"):
        await resolve(client, registry, "app:arm")


async def test_resolve_of_an_index_that_names_itself_ends(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    inner = index((image([LAYER]), "amd64"))
    for _ in range(5):
        registry.push_index(inner, "deep")
        entry = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(inner)}
        inner = json.dumps({"schemaVersion": 2, "manifests": [{**entry, "size": len(inner)}]}).encode()
    registry.push_index(inner, "deep")
    with pytest.raises(Damaged, match="nested deeper"):
        await resolve(client, registry, "app:deep")


@pytest.mark.parametrize("name", ["app:absent", f"app@sha256:{'0' * 64}"])
async def test_resolve_of_what_the_registry_lacks_is_not_found(
    client: RegistryClient, registry: FakeRegistry, name: str
) -> None:
    with pytest.raises(NotFound, match="manifest unknown"):
        await resolve(client, registry, name)


async def test_manifest_that_is_not_what_its_digest_says_is_refused(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    wrong = "sha256:" + "1" * 64
    registry.manifests[wrong] = registry.manifests["1"]
    with pytest.raises(Damaged, match="does not match its digest"):
        await resolve(client, registry, f"app@{wrong}")


async def test_configuration_that_is_not_what_its_digest_says_is_refused(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    built = image([LAYER])
    registry.blobs[built.id] = built.config[:-1] + b" "
    with pytest.raises(Damaged, match="configuration does not match"):
        await resolve(client, registry)


async def test_document_without_end_is_cut_off(client: RegistryClient, registry: FakeRegistry) -> None:
    registry.manifests["huge"] = ("application/json", b" " * (5 << 20))
    with pytest.raises(Damaged, match="more than"):
        await resolve(client, registry, "app:huge")


async def test_download_is_verified_and_complete(
    client: RegistryClient, registry: FakeRegistry, tmp_path: Path
) -> None:
    remote = await resolve(client, registry)
    assert gzip.decompress(await fetch(client, remote, tmp_path / "blob")) == LAYER


async def test_download_that_breaks_goes_on_where_it_broke(
    client: RegistryClient, registry: FakeRegistry, tmp_path: Path
) -> None:
    remote = await resolve(client, registry)
    registry.cut_after = [1000, 0, 700]
    assert gzip.decompress(await fetch(client, remote, tmp_path / "blob")) == LAYER
    assert [r for _, _, r in registry.requests if r] == ["bytes=1000-", "bytes=1000-", "bytes=1700-"]


async def test_download_from_a_registry_without_ranges_starts_again(
    client: RegistryClient, registry: FakeRegistry, tmp_path: Path
) -> None:
    remote = await resolve(client, registry)
    registry.cut_after, registry.ranges = [1000], False
    assert gzip.decompress(await fetch(client, remote, tmp_path / "blob")) == LAYER


@pytest.mark.parametrize(
    ("bend", "words"),
    [
        (lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]), "does not match its digest"),
        (lambda blob: blob + b"x", "is longer than the"),
    ],
)
async def test_download_of_other_bytes_is_refused(
    client: RegistryClient, registry: FakeRegistry, tmp_path: Path, bend: object, words: str
) -> None:
    remote = await resolve(client, registry)
    name = remote.layers[0].digest
    assert callable(bend)
    registry.blobs[name] = bend(registry.blobs[name])
    with pytest.raises(Damaged, match=words):
        await fetch(client, remote, tmp_path / "blob")


async def test_busy_registry_is_asked_again(client: RegistryClient, registry: FakeRegistry) -> None:
    registry.statuses = [503, 429]
    await resolve(client, registry)
    assert len(registry.asked("/manifests/")) == 3


async def test_document_that_breaks_off_is_fetched_again(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    registry.cut_after = [10, 0]
    assert (await resolve(client, registry)).config == image([LAYER]).config


async def test_basic_login_is_sent_only_when_asked_for(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    await resolve(client, registry)
    assert {who for _, who, _ in registry.requests} == {""}
    registry.login = ("ada", "secret")
    await resolve(client, registry)
    assert registry.requests[-1][1].startswith("Basic ")


async def test_wrong_login_is_said_to_be_denied(client: RegistryClient, registry: FakeRegistry) -> None:
    registry.login = ("ada", "other")
    with pytest.raises(Unauthenticated, match="denies access"):
        await resolve(client, registry)


async def test_token_is_fetched_once_and_used_for_all(
    client: RegistryClient, registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.token, registry.login = "t0k3n", ("ada", "secret")
    remote = await resolve(client, registry)
    await fetch(client, remote, tmp_path / "blob")
    assert len(registry.asked("/token")) == 1
    assert [who for path, who, _ in registry.requests if "/blobs/" in path] == ["Bearer t0k3n"] * 2


async def test_token_that_is_refused_is_fetched_anew(client: RegistryClient, registry: FakeRegistry) -> None:
    registry.token = "first"
    await resolve(client, registry)
    registry.token = "second"
    await resolve(client, registry)
    assert registry.requests[-1][1] == "Bearer second"


async def test_redirect_to_another_host_carries_no_credentials(
    client: RegistryClient, registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.login = ("ada", "secret")
    async with serving(FakeRegistry(blobs=dict(registry.blobs))) as store:
        registry.blobs_at = f"http://{store.host}"
        remote = await resolve(client, registry)
        assert gzip.decompress(await fetch(client, remote, tmp_path / "blob")) == LAYER
        assert store.requests and {who for _, who, _ in store.requests} == {""}


async def test_challenge_behind_a_redirect_is_not_answered(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    async with serving(FakeRegistry(blobs=dict(registry.blobs), login=("ada", "secret"))) as store:
        registry.blobs_at = f"http://{store.host}"
        with pytest.raises(Unauthenticated):
            await resolve(client, registry)
        assert {who for _, who, _ in store.requests} == {""}


async def test_redirect_without_end_is_cut_off(client: RegistryClient, registry: FakeRegistry) -> None:
    registry.blobs_at = f"http://{registry.host}"
    with pytest.raises(Unavailable, match="redirects without end"):
        await resolve(client, registry)


async def test_registry_that_does_not_answer_is_unavailable(client: RegistryClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with asyncio.timeout(30):
        with pytest.raises(Unavailable, match="can't be reached"):
            await client.resolve(parse(f"127.0.0.1:{port}/app:1"), AMD64)


async def test_registry_with_an_unknown_name_is_said_to_be_unknown(client: RegistryClient) -> None:
    with pytest.raises(Unavailable, match="unknown to the name service"):
        await client.resolve(parse("registry.invalid/app:1"), AMD64)


async def test_plain_http_is_not_spoken_to_a_host_that_is_not_named_insecure(registry: FakeRegistry) -> None:
    strict = RegistryClient()
    try:
        reference = parse(f"flota.localhost.invalid:{registry.port}/app:1")
        with pytest.raises(Unavailable):
            await strict.resolve(reference, AMD64)
    finally:
        await strict.close()
    assert registry.requests == []
