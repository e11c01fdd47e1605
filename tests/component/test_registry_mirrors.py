"""Mirrors, own authorities and client certificates of registries."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from image.digest import of
from image.manifest import Descriptor
from image.reference import parse
from image.registry.client import RegistryClient
from image.registry.endpoints import RegistrySettings
from image.registry.source import Blob, Outgoing
from model.errors import FlotaError, NotFound, Unavailable
from tests.component.test_registry_hostile import AMD64, BLOB, BUILT, LAYER, client, pull, registry
from tests.support.certificates import authority_and_server
from tests.support.images import image, member, tar
from tests.support.registry import FakeRegistry, serving

__all__ = ["client", "registry"]


@asynccontextmanager
async def using(settings: RegistrySettings) -> AsyncIterator[RegistryClient]:
    client = RegistryClient(settings)
    try:
        yield client
    finally:
        await client.close()


# -- mirrors ----------------------------------------------------------------------------------------
def mirrored(registry: FakeRegistry, *mirrors: str) -> RegistrySettings:
    return RegistrySettings(mirrors={registry.host: mirrors})


async def test_mirror_is_asked_instead_of_its_registry_and_gets_no_login(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.login = ("ada", "secret")
    fake = FakeRegistry()
    fake.push(BUILT, "1")
    async with serving(fake) as mirror, using(mirrored(registry, f"http://{mirror.host}")) as client:
        assert await pull(client, registry.host, tmp_path / "blob") == LAYER
        assert registry.acts == [] and {who for _, who, _ in mirror.requests} == {""}


async def test_tags_are_those_of_the_first_mirror_that_knows_the_repository(registry: FakeRegistry) -> None:
    registry.names, fake, empty = ["own"], FakeRegistry(), FakeRegistry()
    fake.names = ["1", "2"]
    async with serving(fake) as mirror, serving(empty) as other:
        ways = f"http://{other.host}", f"http://{mirror.host}"
        async with using(mirrored(registry, *ways)) as client:
            assert list(await client.tags(parse(f"{registry.host}/app"))) == ["1", "2"]
        async with using(mirrored(registry, f"http://{other.host}")) as client:
            assert list(await client.tags(parse(f"{registry.host}/app"))) == ["own"]


async def test_document_is_the_mirrors_only_where_it_is_asked_for_near(registry: FakeRegistry) -> None:
    other = image([tar(member("other", b"other"))])
    fake, empty = FakeRegistry(), FakeRegistry()
    fake.push(other, "1")
    async with serving(fake) as mirror, serving(empty) as lacking:
        ways = f"http://{lacking.host}", "http://127.0.0.1:9", f"http://{mirror.host}"
        async with using(mirrored(registry, *ways)) as client:
            wanted = parse(f"{registry.host}/app:1")
            assert (await client.document(wanted, near=True)).digest == other.digest
            assert registry.acts == []
            assert (await client.document(wanted)).digest == BUILT.digest
        async with using(mirrored(registry, *ways[:2])) as client:
            assert (await client.document(wanted, near=True)).digest == BUILT.digest


async def test_mirror_that_lacks_the_image_or_is_down_is_passed_over(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    async with serving(FakeRegistry()) as empty:
        told = mirrored(registry, "http://127.0.0.1:9", f"http://{empty.host}")
        async with using(told) as client:
            assert await pull(client, registry.host, tmp_path / "blob") == LAYER


async def test_mirror_that_wants_a_login_is_passed_over(registry: FakeRegistry, tmp_path: Path) -> None:
    closed = FakeRegistry(login=("ada", "secret"))
    closed.push(BUILT, "1")
    async with serving(closed) as mirror, using(mirrored(registry, f"http://{mirror.host}")) as client:
        assert await pull(client, registry.host, tmp_path / "blob") == LAYER
        assert {who for _, who, _ in mirror.requests} == {""}


async def test_layer_that_a_mirror_has_damaged_comes_from_the_registry(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.login = ("ada", "secret")
    fake = FakeRegistry()
    fake.push(BUILT, "1")
    data = bytearray(fake.blobs[BLOB])
    data[-1] ^= 1
    fake.blobs[BLOB] = bytes(data)
    async with serving(fake) as mirror, using(mirrored(registry, f"http://{mirror.host}")) as client:
        assert await pull(client, registry.host, tmp_path / "blob") == LAYER
        assert len(mirror.asked(BLOB)) == 1 and registry.asked(BLOB)


async def test_what_no_mirror_and_no_registry_has_is_not_found(registry: FakeRegistry) -> None:
    async with serving(FakeRegistry()) as empty, using(mirrored(registry, f"http://{empty.host}")) as client:
        with pytest.raises(NotFound, match=registry.host):
            await client.resolve(parse(f"{registry.host}/app:2"), AMD64)


# -- certificates -----------------------------------------------------------------------------------
async def test_registry_with_a_ca_of_its_own_is_trusted_where_that_is_laid_down(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    ca, server = authority_and_server(tmp_path)
    fake = FakeRegistry()
    fake.push(BUILT, "1")
    async with serving(fake, tls=server) as mirror:
        folder = tmp_path / "certs.d" / mirror.host
        told = RegistrySettings(
            mirrors={registry.host: (f"https://{mirror.host}",)}, certificates=(str(tmp_path / "certs.d"),)
        )
        async with using(told) as client:
            await pull(client, registry.host, tmp_path / "blob")
            assert mirror.acts == [] and registry.acts
            folder.mkdir(parents=True)
            (folder / "ca.crt").write_bytes(ca.read_bytes())
            registry.acts.clear()
            assert await pull(client, registry.host, tmp_path / "blob") == LAYER
            assert mirror.acts and registry.acts == []


async def test_certificate_that_is_none_is_named(registry: FakeRegistry, tmp_path: Path) -> None:
    folder = tmp_path / "certs.d" / registry.host
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_text("nonsense")
    async with using(RegistrySettings(certificates=(str(tmp_path / "certs.d"),))) as client:
        with pytest.raises(FlotaError, match=r"ca\.crt can't be used"):
            await client.resolve(parse(f"{registry.host}/app:1"), AMD64)


async def test_client_certificate_is_shown_to_the_registry_that_wants_it(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    ca, server = authority_and_server(tmp_path)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(ca)
    fake = FakeRegistry()
    fake.push(BUILT, "1")
    async with serving(fake, tls=server) as mirror:
        folder = tmp_path / "certs.d" / mirror.host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(ca.read_bytes())
        (folder / "client.cert").write_bytes((tmp_path / "client.pem").read_bytes())
        (folder / "client.key").write_bytes((tmp_path / "client.key").read_bytes())
        told = RegistrySettings(
            mirrors={registry.host: (f"https://{mirror.host}",)}, certificates=(str(tmp_path / "certs.d"),)
        )
        async with using(told) as client:
            assert await pull(client, registry.host, tmp_path / "blob") == LAYER
            assert mirror.acts and registry.acts == []


class Deaf:
    """Opens uploads and reads no byte of them. In threads, as nothing of it is to be waited for."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.held: list[socket.socket] = []
        self.host = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Deaf:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        for one in self.held:
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one = self._listening.accept()[0]
                verb = one.recv(4096).split(b" ")[0]
                if verb == b"PATCH":
                    self.held.append(one)
                    continue
                status = b"202 A\r\nLocation: /v2/up" if verb == b"POST" else b"404 N"
                one.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                one.close()


async def test_registry_that_takes_nothing_is_given_up(client: RegistryClient, tmp_path: Path) -> None:
    data = bytes(16 << 20)
    path = tmp_path / "blob"
    path.write_bytes(data)
    blob = Blob(descriptor=Descriptor(digest=of(data), size=len(data)), path=path)
    with Deaf() as deaf:
        outgoing = Outgoing(
            reference=parse(f"{deaf.host}/app:1"),
            manifest=b"{}",
            media_type="x",
            config=b"{}",
            layers=(blob,),
        )
        async with asyncio.timeout(30):
            with pytest.raises(Unavailable, match="silent, or too slow"):
                await client.push(outgoing)
        assert len(deaf.held) == 5
