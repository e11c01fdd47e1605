"""The registry's content on other hosts: a real controller's registry over TLS, hosts by their certificates;
its disk is lost, and all of it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import pytest
from msgspec.structs import replace

from agent.registrycopies import CopyStore, RegistryCopies
from image.registry.server import copies
from image.registry.server.copies import Head
from image.registry.server.index import Index
from image.registry.server.limits import Limits
from model.errors import Exhausted
from model.registrycopies import PATH, CopyReport
from tests.support.fleetregistry import Client
from tests.support.images import Built, digest, image, member, tar
from tests.support.ports import free_port
from tests.support.servedregistry import Controlled, controlled
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(120)
BUILT = image([tar(member("a", b"a" * 3_000_000)), tar(member("b", b"b"))])
OTHER = image([tar(member("c", b"c"))])
LARGE = max(len(data) for data in BUILT.blobs.values())
NAMES = ("n1", "n2", "n3")


class Tight(CopyStore):
    def begin(self, size: int) -> Path:
        if size >= LARGE:
            raise Exhausted("the disk has no room")
        return super().begin(size)


@dataclass
class Hosts:
    """Copies of hosts that have joined, each in a folder of its own."""

    fleet: Controlled
    folder: Path
    pairs: dict[str, tuple[Path, Path]]
    tight: tuple[str, ...] = ()
    """Those that have no room for a large blob."""

    def store(self, name: str) -> CopyStore:
        kind = Tight if name in self.tight else CopyStore
        return kind(self.folder / name, Limits(reserve=0))

    @contextlib.asynccontextmanager
    async def there(self, *names: str) -> AsyncIterator[None]:
        running = [
            asyncio.create_task(
                RegistryCopies(
                    self.store(name), lambda: self.fleet.host, self.fleet.context(*self.pairs[name])
                ).run()
            )
            for name in names
        ]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    async def status(self) -> dict[str, object]:
        status, found = await self.fleet.api("GET", "/v1/registry")
        assert status == 200, found
        return dict(found)

    async def whole(self, on: int = 2) -> bool:
        found = await self.status()
        return found.get("whole", 0) == on and not found.get("lost", 0)


@contextlib.asynccontextmanager
async def site(folder: Path) -> AsyncIterator[tuple[Hosts, Client]]:
    async with controlled(folder / "fleet") as fleet:
        pairs = {}
        for name in NAMES:
            pairs[name] = (fleet.folder / f"{name}.pem", fleet.folder / f"{name}.key")
            if not pairs[name][0].exists():
                await fleet.joined(name)
        async with fleet.client(*fleet.admin) as client:
            yield Hosts(fleet, folder / "hosts", pairs), client


def lose_disk(folder: Path) -> None:
    """Of the registry; the controller's store and CA are as a restored backup has them."""
    shutil.rmtree(folder / "fleet/state/registry")


async def test_content_comes_back_to_an_empty_disk_from_hosts_that_kept_it(tmp_path: Path) -> None:
    async with site(tmp_path) as (hosts, client), hosts.there(*NAMES):
        await client.push("team/box", BUILT, "1", "2")
        await client.push("team/other", OTHER, "1")
        await until(hosts.whole, deadline=40, what="two copies")
        await client.ask("DELETE", "/v2/team/box/manifests/2")
        await until(hosts.whole, deadline=20, what="the state after a deletion")
        found = await hosts.status()
        assert found["wanted"] == 2 and len([h for h in found["hosts"] if h["chosen"]]) == 2  # type: ignore[attr-defined]
    lose_disk(tmp_path)
    async with site(tmp_path) as (hosts, client):
        assert (await client.ask("GET", "/v2/team/box/manifests/1")).status == 404
        async with hosts.there(*NAMES):
            await until(hosts.whole, deadline=40, what="all is back")
        assert (await client.ask("GET", "/v2/team/box/manifests/1")).body == BUILT.manifest
        assert (await client.ask("GET", "/v2/team/box/manifests/2")).status == 404
        assert (await client.ask("GET", "/v2/team/other/tags/list")).json["tags"] == ["1"]
        for found_, data in BUILT.blobs.items():
            assert (await client.ask("GET", f"/v2/team/box/blobs/{found_}")).body == data


async def test_what_was_pushed_before_the_copies_came_back_stays(tmp_path: Path) -> None:
    async with site(tmp_path) as (hosts, client), hosts.there("n1", "n2"):
        await client.push("team/box", BUILT, "1")
        await until(hosts.whole, deadline=40, what="two copies")
    lose_disk(tmp_path)
    async with site(tmp_path) as (hosts, client):
        await client.push("team/box", OTHER, "1", "new")
        async with hosts.there("n1", "n2"):
            await until(hosts.whole, deadline=40, what="both are there")
        assert (await client.ask("GET", "/v2/team/box/manifests/1")).body == OTHER.manifest
        reply = await client.ask("GET", f"/v2/team/box/manifests/{BUILT.digest}")
        assert reply.body == BUILT.manifest
        for found, data in BUILT.blobs.items():
            assert (await client.ask("GET", f"/v2/team/box/blobs/{found}")).body == data


async def test_blob_that_the_disk_damaged_is_mended_from_a_copy(tmp_path: Path) -> None:
    async with site(tmp_path) as (hosts, client), hosts.there("n1", "n2"):
        await client.push("team/box", BUILT, "1")
        await until(hosts.whole, deadline=40, what="two copies")
        layer = max(BUILT.blobs, key=lambda found: len(BUILT.blobs[found]))
        blobs = tmp_path / "fleet/state/registry/blobs/sha256"
        (blobs / layer[7:9] / layer[7:]).write_bytes(b"x" * len(BUILT.blobs[layer]))
        with contextlib.suppress(aiohttp.ClientError):
            await client.ask("GET", f"/v2/team/box/blobs/{layer}")

        async def mended() -> bool:
            reply = await client.ask("HEAD", f"/v2/team/box/blobs/{layer}")
            return reply.status == 200

        await until(mended, deadline=30, what="the blob is back")
        assert (await client.ask("GET", f"/v2/team/box/blobs/{layer}")).body == BUILT.blobs[layer]


async def test_host_drops_what_the_registry_does_not_hold_and_hashes_what_it_fetches(tmp_path: Path) -> None:
    async with site(tmp_path) as (hosts, client):
        await client.push("team/box", BUILT, "1")
        store = hosts.store("n1")
        store.open()
        waste = store.files.blob(digest(b"waste"))
        waste.write_bytes(b"waste")
        async with hosts.there("n1", "n2"):
            await until(hosts.whole, deadline=40, what="two copies")
            await until(lambda: not waste.exists(), deadline=20, what="waste is gone")
        assert set(store.report().have) == set(BUILT.blobs)
        for found, data in BUILT.blobs.items():
            assert store.files.blob(found).read_bytes() == data


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
async def test_only_hosts_speak_of_copies(tmp_path: Path, method: str) -> None:
    async with site(tmp_path) as (hosts, admin):
        path = PATH if method == "POST" else f"{PATH}/blobs/{digest(b'x')}"
        assert (await admin.ask(method, path, b"{}")).status == 403
        async with hosts.fleet.client() as nobody:
            assert (await nobody.ask(method, path, b"{}")).status in (401, 403)
        async with hosts.fleet.client(*hosts.pairs["n1"]) as host:
            reply = await host.ask("PUT", f"{PATH}/blobs/{digest(b'x')}", b"x")
            assert reply.status == 204
            assert (await host.ask("GET", f"{PATH}/blobs/{digest(b'x')}")).status == 404
            assert (await host.ask("PUT", f"{PATH}/index", b"forged")).status == 403
            assert (await host.ask("POST", PATH, b"nonsense")).status == 400


async def test_state_that_the_fleet_did_not_seal_is_refused_and_holds_nobody_up(tmp_path: Path) -> None:
    async with site(tmp_path) as (hosts, client):
        await client.push("team/box", BUILT, "1")
        store = hosts.store("n1")
        store.open()
        store.keep_index(Head(lineage="f" * 32, generation=99), b"forged")
        async with hosts.there("n1", "n2"):
            await until(hosts.whole, deadline=60, what="two copies")
        assert store.index()[0].lineage != "f" * 32
        assert (await client.ask("GET", "/v2/_catalog")).json == {"repositories": ["team/box"]}


async def claimed(host: Client, head: Head, sealed: bytes) -> int:
    """How a host is answered that tells of that state and sends this document."""
    report = CopyReport(lineage=head.lineage, generation=head.generation)
    assert (await host.ask("POST", PATH, msgspec.json.encode(report))).json.get("send_index")
    return (await host.ask("PUT", f"{PATH}/index", sealed)).status


async def test_host_that_sends_an_old_state_as_a_newer_one_undoes_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as (hosts, client):
        await client.push("team/box", BUILT, "1")
        async with hosts.there("n1", "n2"):
            await until(hosts.whole, deadline=40, what="two copies")
        head, sealed = hosts.store("n1").index()
        await client.push("team/other", OTHER, "1")
    async with site(tmp_path) as (hosts, client):
        async with hosts.fleet.client(*hosts.pairs["n1"]) as host:
            assert await claimed(host, replace(head, generation=10**6), sealed) == 400
        assert (await client.ask("GET", "/v2/team/other/manifests/1")).body == OTHER.manifest


async def test_host_whose_document_is_damaged_does_not_spoil_that_of_another(tmp_path: Path) -> None:
    async with site(tmp_path) as (hosts, client), hosts.there("n1", "n2"):
        await client.push("team/box", BUILT, "1")
        await until(hosts.whole, deadline=40, what="two copies")
    lose_disk(tmp_path)
    async with site(tmp_path) as (hosts, client):
        async with hosts.fleet.client(*hosts.pairs["n1"]) as host:
            assert await claimed(host, hosts.store("n1").index()[0], b"damaged") == 400
        async with hosts.there("n2"):
            await until(lambda: came_back(client, "team/box", BUILT), deadline=40, what="all is back")


async def came_back(client: Client, name: str, built: Built) -> bool:
    found = [(await client.ask("HEAD", f"/v2/{name}/blobs/{digest}")).status for digest in built.blobs]
    return set(found) == {200} and (await client.ask("GET", f"/v2/{name}/manifests/1")).body == built.manifest


async def test_host_with_an_older_copy_that_comes_first_does_not_hide_a_newer_one(tmp_path: Path) -> None:
    async with site(tmp_path) as (hosts, client):
        await client.push("team/box", OTHER, "1")
        await client.push("team/old", OTHER, "1")
        async with hosts.there("n1", "n2"):
            await until(hosts.whole, deadline=40, what="two copies")
        await client.push("team/box", BUILT, "1")
        await client.ask("DELETE", f"/v2/team/old/manifests/{OTHER.digest}")
        async with hosts.there("n2"):
            await until(lambda: hosts.whole(1), deadline=40, what="a newer copy")
    lose_disk(tmp_path)
    async with site(tmp_path) as (hosts, client), hosts.there("n1"):
        await until(lambda: came_back(client, "team/box", OTHER), deadline=40, what="the older")
        async with hosts.there("n2"):
            await until(lambda: came_back(client, "team/box", BUILT), deadline=40, what="the newer")
        assert (await client.ask("GET", "/v2/team/old/manifests/1")).status == 404


async def test_blob_that_the_disk_damaged_before_it_was_copied_holds_no_other_up(tmp_path: Path) -> None:
    async with site(tmp_path) as (hosts, client):
        await client.push("team/box", BUILT, "1")
        first = min(BUILT.blobs)
        path = tmp_path / "fleet/state/registry/blobs/sha256" / first[7:9] / first[7:]
        path.write_bytes(b"x" * len(BUILT.blobs[first]))
        left, store = BUILT.blobs.keys() - {first}, hosts.store("n1")
        store.open()
        async with hosts.there("n1"):
            await until(lambda: left <= set(store.report().have), deadline=40, what="the others are copied")
        assert (await hosts.status())["lost"] == 1


async def test_host_of_a_fleet_without_a_registry_makes_no_folders_for_copies(tmp_path: Path) -> None:
    registry, asked = "", asyncio.Event()

    def named() -> str:
        asked.set()
        return registry

    store = CopyStore(tmp_path / "copy", Limits())
    async with asyncio.timeout(30):
        running = asyncio.create_task(RegistryCopies(store, named, ssl.create_default_context()).run())
        try:
            await asked.wait()
            assert not (tmp_path / "copy").exists()
        finally:
            running.cancel()
            await asyncio.wait([running])
        registry = f"127.0.0.1:{free_port()}"
        running = asyncio.create_task(RegistryCopies(store, named, ssl.create_default_context()).run())
        try:
            await until((tmp_path / "copy" / "uploads").exists, deadline=20, what="folders")
        finally:
            running.cancel()
            await asyncio.wait([running])


async def test_host_without_room_keeps_what_it_can_and_another_takes_its_place(tmp_path: Path) -> None:
    async with site(tmp_path) as (hosts, client):
        hosts.tight = ("n1",)
        await client.push("team/box", BUILT, "1")
        small = {found for found, data in BUILT.blobs.items() if len(data) < LARGE}
        store = hosts.store("n1")
        store.open()

        async def told() -> bool:
            return any(host.get("full") for host in (await hosts.status()).get("hosts", []))  # type: ignore[attr-defined]

        async with hosts.there("n1"):
            await until(told, deadline=40, what="it says so")
            assert set(store.report().have) == small and store.report().lineage
            async with hosts.there("n2", "n3"):
                await until(hosts.whole, deadline=40, what="two others have all of it")
        found = (await hosts.status())["hosts"]
        assert {h["name"] for h in found if h["chosen"]} == {"n2", "n3"}  # type: ignore[attr-defined]


async def test_blob_that_comes_back_leaves_the_disk_the_room_that_pushes_leave_it(tmp_path: Path) -> None:
    async with site(tmp_path) as (hosts, _):
        pass
    index = Index.open(tmp_path / "fleet/state/registry/index.db")
    index.link("team/box", digest(b"a"), time.time(), size=1 << 60)
    index.close()
    async with site(tmp_path) as (hosts, _), hosts.fleet.client(*hosts.pairs["n1"]) as host:
        assert (await host.ask("PUT", f"{PATH}/blobs/{digest(b'a')}", b"a")).status == 507


def test_folder_that_was_put_back_and_filled_anew_does_not_hide_what_came_after_it(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index.db")
    copies.begin(index)
    index.link("team/box", digest(b"a"), 0.0, size=1)
    index.close()
    shutil.copy(tmp_path / "index.db", tmp_path / "before.db")
    index = Index.open(tmp_path / "index.db")
    index.link("team/new", digest(b"b"), 0.0, size=1)
    kept = copies.snapshot(index)
    index.close()
    index = Index.open(tmp_path / "before.db")
    copies.begin(index)
    for letter in (b"c", b"d", b"e"):
        index.link("team/other", digest(letter), 0.0, size=1)
    assert copies.head(index).generation > kept.head.generation > copies.lineages(index)[kept.head.lineage]
    copies.take_in(index, kept, 0.0)
    assert index.names("", 9) == ["team/box", "team/new", "team/other"]
    assert copies.lost(index) == {digest(b"b"): 1}
    index.close()


def test_registry_whose_disk_lost_blobs_is_no_newer_than_its_copies(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index.db")
    index.link("team/box", digest(b"a"), 0.0, size=1)
    before = copies.head(index)
    index.lose(digest(b"a"))
    assert copies.lost(index) == {digest(b"a"): 1} and copies.head(index) == before
    assert copies.came_back(index, digest(b"a")) and copies.head(index) == before
    index.link("team/box", digest(b"b"), 0.0, size=1)
    assert copies.head(index).generation > before.generation
    index.close()
