"""Our registry and our client beside Debian's docker-registry: images go both ways between the two, our
client pushes to it with a login and mounts, and pulls through it as a cache."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from image.manifest import Descriptor
from image.reference import parse
from image.registry.client import RegistryClient
from image.registry.endpoints import RegistrySettings
from image.registry.source import Blob, Outgoing
from model.errors import FlotaError, Unauthenticated
from model.image import Progress
from model.registries import NOBODY, Login
from model.status import Platform
from tests.component.registry.test_other_tools import ARM, BUILT, LAYERS, skopeo
from tests.support.dockerregistry import docker_registry
from tests.support.fleetregistry import Client, Served, serving
from tests.support.images import INDEX, MANIFEST, digest, index

AMD64 = Platform(os="linux", arch="amd64")
ADA = Login(user="ada", password="secret")
HTPASSWD = "ada:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
"""bcrypt of her password."""
BOTH = index((BUILT, "amd64"), (ARM, "arm64"))
PLAIN = ("--src-tls-verify=false", "--dest-tls-verify=false")


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[str]:
    with docker_registry(tmp_path / "theirs") as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
async def clients(served: Served, theirs: str) -> AsyncIterator[dict[str, Client]]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield {served.host: served.client, theirs: Client(f"http://{theirs}", session)}


@pytest.mark.parametrize("out", [True, False], ids=["from ours", "to ours"])
async def test_skopeo_copies_every_platform_to_the_other_registry_and_deletes_there(
    served: Served, theirs: str, clients: dict[str, Client], out: bool
) -> None:
    source, target = (served.host, theirs) if out else (theirs, served.host)
    for built in (BUILT, ARM):
        await clients[source].push("team/multi", built)
    assert (await clients[source].push_manifest("team/multi", "1", BOTH, INDEX)).status == 201
    words = ("--all", "--preserve-digests", f"docker://{source}/team/multi:1")
    await skopeo("copy", *PLAIN, *words, f"docker://{target}/copied/multi:2")
    there = clients[target]
    assert (await there.ask("GET", "/v2/copied/multi/manifests/2", Accept=INDEX)).body == BOTH
    for built in (BUILT, ARM):
        path = f"/v2/copied/multi/manifests/{built.digest}"
        assert (await there.ask("GET", path, Accept=MANIFEST)).body == built.manifest
        for found, data in built.blobs.items():
            assert (await there.ask("GET", f"/v2/copied/multi/blobs/{found}")).body == data
    await skopeo("delete", "--tls-verify=false", f"docker://{target}/copied/multi:2")
    assert (await there.ask("GET", "/v2/copied/multi/manifests/2", Accept=INDEX)).status == 404


def outgoing(name: str, folder: Path, *mounts: str) -> Outgoing:
    layers = []
    for found, data in BUILT.blobs.items():
        if found != BUILT.id:
            (folder / found[7:]).write_bytes(data)
            descriptor = Descriptor(digest=found, size=len(data))
            layers.append(Blob(descriptor=descriptor, path=folder / found[7:]))
    return Outgoing(
        reference=parse(name),
        manifest=BUILT.manifest,
        media_type=MANIFEST,
        config=BUILT.config,
        layers=tuple(layers),
        mounts=mounts,
    )


async def layer(client: RegistryClient, name: str, path: Path, login: Login = NOBODY) -> bytes:
    """The lowest, unpacked."""
    remote = await client.resolve(parse(name), AMD64, login)
    assert remote.config == BUILT.config and remote.pinned.endswith(BUILT.digest)
    await client.download(remote, remote.layers[0], path, lambda _: None)
    return gzip.decompress(path.read_bytes())


async def test_we_push_with_a_login_mount_and_pull(tmp_path: Path) -> None:
    client = RegistryClient()
    with docker_registry(tmp_path / "theirs", htpasswd=HTPASSWD) as port:
        host, lines = f"127.0.0.1:{port}", list[Progress]()
        try:
            for wrong in (NOBODY, Login(user="ada", password="other")):
                with pytest.raises(Unauthenticated):
                    await client.push(outgoing(f"{host}/team/app:1", tmp_path), wrong)
            await client.push(outgoing(f"{host}/team/app:1", tmp_path), ADA, say=lines.append)
            assert [line.status for line in lines].count("Pushed") == len(LAYERS)
            lines.clear()
            await client.push(outgoing(f"{host}/other/app:1", tmp_path, "team/app"), ADA, say=lines.append)
            assert [line.status for line in lines].count("Mounted from team/app") == len(LAYERS)
            for name in ("team/app:1", "other/app:1"):
                with pytest.raises(Unauthenticated):
                    await layer(client, f"{host}/{name}", tmp_path / "blob")
                assert await layer(client, f"{host}/{name}", tmp_path / "blob", ADA) == LAYERS[0]
            assert await client.tags(parse(f"{host}/team/app"), ADA) == ("1",)
            for words in (("--creds", "ada:secret"), ()):
                told = await skopeo(
                    "inspect", "--tls-verify=false", *words, f"docker://{host}/other/app:1", check=False
                )
                assert (told.returncode == 0) == bool(words)
                assert not words or BUILT.digest in told.stdout
        finally:
            await client.close()


async def test_hosts_pull_through_a_cache_what_the_registry_behind_it_has_no_more(tmp_path: Path) -> None:
    """The cache is docker-registry's, the registry behind it ours; a host knows the cache as a mirror."""

    async def pulled(host: str, cache: str, number: int) -> bytes:
        client = RegistryClient(RegistrySettings(mirrors={host: (cache,)}))
        try:
            return await layer(client, f"{host}/team/app:1", tmp_path / f"blob{number}")
        finally:
            await client.close()

    async with serving(tmp_path / "registry") as served:
        host = served.host
        await served.client.push("team/app", BUILT, "1")
        with ExitStack() as stack:
            mirror = docker_registry(tmp_path / "cache", upstream=f"http://{host}")
            port = await asyncio.to_thread(stack.enter_context, mirror)  # it asks ours before it answers
            cache = f"http://127.0.0.1:{port}"
            assert await pulled(host, cache, 1) == LAYERS[0]
            for found in (BUILT.id, digest(gzip.compress(LAYERS[0], 1, mtime=0))):
                assert (await served.client.ask("DELETE", f"/v2/team/app/blobs/{found}")).status == 202
            with pytest.raises(FlotaError):
                await pulled(host, "http://127.0.0.1:1", 2)
            assert await pulled(host, cache, 3) == LAYERS[0]
