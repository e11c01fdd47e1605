"""What nobody holds goes, and nothing else: uploads, blobs, repositories; against pushes at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aio.clock import VirtualClock
from image.registry.server.files import PREFIXES
from image.registry.server.limits import Limits
from tests.support.fleetregistry import Served, serving
from tests.support.images import INDEX, digest, image, index, member, tar

LIMITS = Limits(reserve=0, grace=100.0, idle=50.0, age=200.0, collect_every=1e9)
BUILT = image([tar(member("a", b"a"))])
OTHER = image([tar(member("b", b"b"))])


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def served(tmp_path: Path, clock: VirtualClock) -> AsyncIterator[Served]:
    async with serving(tmp_path / "registry", limits=LIMITS, clock=clock) as found:
        yield found


def files(served: Served) -> set[str]:
    return {found for prefix in PREFIXES for found in served.registry.content.files.blobs(prefix)}


async def later(served: Served, clock: VirtualClock, seconds: float) -> None:
    await clock.advance(seconds)
    await served.registry.tidy()


async def test_blob_that_no_manifest_holds_goes_after_its_grace(served: Served, clock: VirtualClock) -> None:
    found = await served.client.push_blob("app", b"alone")
    await later(served, clock, 99)
    assert files(served) == {found}
    await later(served, clock, 2)
    assert files(served) == set()
    assert (await served.client.ask("HEAD", f"/v2/app/blobs/{found}")).status == 404
    assert served.registry.content.index.totals() == (0, 0, 0)


async def test_what_a_manifest_holds_stays_tagged_or_not(served: Served, clock: VirtualClock) -> None:
    await served.client.push("app", BUILT, "1")
    await served.client.push("app", OTHER)
    await served.client.push_manifest("app", "multi", index((OTHER, "amd64")), INDEX)
    await later(served, clock, 1000)
    assert files(served) == {*BUILT.blobs, *OTHER.blobs}
    await served.client.ask("DELETE", "/v2/app/manifests/1")
    await later(served, clock, 1000)
    assert files(served) == {*BUILT.blobs, *OTHER.blobs}


async def test_deleted_manifests_blobs_go_but_for_those_that_others_hold(
    served: Served, clock: VirtualClock
) -> None:
    base = tar(member("base", b"base"))
    first, second = image([base, tar(member("1", b"1"))]), image([base, tar(member("2", b"2"))])
    await served.client.push("app", first, "1")
    await served.client.push("app", second, "2")
    await served.client.push("elsewhere", first, "1")
    await served.client.ask("DELETE", f"/v2/app/manifests/{first.digest}")
    await later(served, clock, 1000)
    assert files(served) == {*first.blobs, *second.blobs}
    gone = next(iter(first.blobs.keys() - second.blobs.keys()))
    assert (await served.client.ask("HEAD", f"/v2/app/blobs/{gone}")).status == 404
    await served.client.ask("DELETE", f"/v2/elsewhere/manifests/{first.digest}")
    await later(served, clock, 1000)
    assert files(served) == set(second.blobs)
    assert (await served.client.ask("GET", "/v2/_catalog")).json == {"repositories": ["app"]}


@pytest.mark.parametrize("way", ["HEAD", "mount", "push"])
async def test_blob_that_a_push_has_made_sure_of_is_there_for_its_manifest(
    served: Served, clock: VirtualClock, way: str
) -> None:
    for blob in BUILT.blobs.values():
        await served.client.push_blob("old", blob)
        await served.client.push_blob("app", blob)
    await clock.advance(99)
    for found, blob in BUILT.blobs.items():
        if way == "HEAD":
            assert (await served.client.ask("HEAD", f"/v2/app/blobs/{found}")).status == 200
        elif way == "mount":
            path = f"/v2/app/blobs/uploads/?mount={found}&from=old"
            assert (await served.client.ask("POST", path)).status == 201
        else:
            await served.client.push_blob("app", blob)
    await later(served, clock, 49)
    assert (await served.client.push_manifest("app", "1", BUILT.manifest)).status == 201
    await later(served, clock, 1000)
    assert files(served) == set(BUILT.blobs)


async def test_blob_is_sent_though_nothing_can_be_written(served: Served, clock: VirtualClock) -> None:
    await served.client.push("app", BUILT, "1")
    await clock.advance(LIMITS.grace)
    index = served.registry.content.index
    index.rows("PRAGMA query_only = ON")  # as on a disk that is full, or turned read-only
    for _ in range(2):
        assert (await served.client.ask("GET", f"/v2/app/blobs/{BUILT.id}")).body == BUILT.config
    index.rows("PRAGMA query_only = OFF")
    await served.client.push("app", BUILT, "2")


async def test_upload_that_nobody_goes_on_with_is_dropped(served: Served, clock: VirtualClock) -> None:
    where, kept = await served.client.begin("app"), await served.client.begin("app")
    await served.client.ask("PATCH", where, b"x" * 1000)
    await later(served, clock, 40)
    await served.client.ask("PATCH", kept, b"y")
    await later(served, clock, 20)
    assert (await served.client.ask("GET", where)).status == 404
    assert (await served.client.ask("GET", kept)).status == 204
    assert len(served.registry.content.files.uploads()) == 1


async def test_upload_is_dropped_at_its_age_however_busy(served: Served, clock: VirtualClock) -> None:
    where = await served.client.begin("app")
    for _ in range(5):
        await later(served, clock, 41)
        reply = await served.client.ask("PATCH", where, b"x")
    assert reply.status == 404 and served.registry.content.files.uploads() == []


async def test_upload_goes_on_after_a_restart(tmp_path: Path, clock: VirtualClock) -> None:
    data = b"0123456789" * 1000
    folder = tmp_path / "restarted"
    async with serving(folder, limits=LIMITS, clock=clock) as served:
        where = await served.client.begin("app")
        await served.client.ask("PATCH", where, data[:7000])
    async with serving(folder, limits=LIMITS, clock=clock) as served:
        assert (await served.client.ask("GET", where)).headers["Range"] == "0-6999"
        reply = await served.client.ask("PUT", f"{where}?digest={digest(data)}", data[7000:])
        assert reply.status == 201
        assert (await served.client.ask("GET", f"/v2/app/blobs/{digest(data)}")).body == data


async def test_pushes_and_collecting_at_once_lose_nothing(tmp_path: Path) -> None:
    """With no grace to speak of, everything that a manifest holds is there once its push was confirmed; until
    then a blob may be gone, which the push is told."""
    limits = Limits(reserve=0, grace=0.05, collect_every=1e9)
    built = [image([tar(member("same", b"same")), tar(member(f"{n}", b"%d" % n))]) for n in range(8)]
    async with serving(tmp_path / "registry", limits=limits) as served:
        done = asyncio.Event()

        async def collect() -> None:
            while not done.is_set():
                await served.registry.tidy()
                await asyncio.sleep(0)

        async def push(number: int) -> None:
            name = f"app{number % 3}"
            for _ in range(6):
                while True:
                    for blob in built[number].blobs.values():
                        await served.client.push_blob(name, blob)
                    reply = await served.client.push_manifest(name, str(number), built[number].manifest)
                    if reply.status == 201:
                        break
                    assert reply.code == "MANIFEST_BLOB_UNKNOWN"
                for found, blob in built[number].blobs.items():
                    assert (await served.client.ask("GET", f"/v2/{name}/blobs/{found}")).body == blob
                await served.client.ask("DELETE", f"/v2/{name}/manifests/{built[number].digest}")

        collecting = asyncio.create_task(collect())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(len(built)):
                    group.create_task(push(number))
        finally:
            done.set()
            await collecting
        with served.registry.content.index.change() as connection:
            connection.execute("UPDATE links SET touched = 0")
        await served.registry.tidy()
        assert files(served) == set()
