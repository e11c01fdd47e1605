"""When a host makes room for images, what it spares, and what it says of it."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from agent.imageroom import ImageRoom, spared
from agent.record import Local
from aio.supervisor import Supervisor
from image.collection import Disk
from image.fake import FakeImages, record
from model.buildcache import CacheKeeping
from model.ids import ServiceId
from model.image import ImageKeeping, ImageRecord, KeptImages
from model.view import View
from tests.support.agentlab import ident, instance, view
from tests.support.waiting import until

KEPT = {ServiceId("w" * 64): KeptImages(service="web", images=("web:2", "web:1"))}
FULL = Disk(capacity=100, free=5)


class Room:
    """Of a host with images of one byte each, and what it told."""

    def __init__(self, tmp_path: Path, *names: str, seen: View | None = None) -> None:
        self.images = FakeImages(tmp_path, [record(name) for name in names])
        self.view = seen
        self.told: list[tuple[str, str, str]] = []
        self.reports = 0
        self.room = ImageRoom(self.images, lambda: self.view, lambda: ())
        self.room.told = self._hear
        self.room.changed = self._report

    def _hear(self, action: str, image: ImageRecord, reason: str) -> None:
        self.told.append((action, image.names[0], reason))

    def _report(self) -> None:
        self.reports += 1


def test_spared_are_what_containers_and_services_need_each_with_its_reason() -> None:
    seen = replace(view(instance(1)), kept_images=KEPT)
    why = spared(seen, [Local(instance=ident(2), image_id="sha256:ab")])
    assert why == {
        "app:1": "container box1 is made of it",
        "sha256:ab": f"container {ident(2)[:12]} is made of it",
        "web:2": "service web is made of it",
        "web:1": "service web may go back to it",
    }


async def test_room_is_made_on_a_full_disk_and_each_image_told_with_the_reason(tmp_path: Path) -> None:
    host = Room(tmp_path, "a:1", "b:1", seen=replace(view(), keeping=ImageKeeping(gc_high=90, gc_low=95)))
    host.images.room = Disk(capacity=100, free=4)
    removed = await host.room.tidy()
    assert len(removed.deleted) == 1 and host.room.troubles == ()
    assert host.told == [("delete", "docker.io/library/a:1", "its disk was 96 % full")]


async def test_disk_below_the_mark_loses_nothing(tmp_path: Path) -> None:
    host = Room(tmp_path, "a:1", seen=view())
    assert (await host.room.tidy()).deleted == () and host.told == []


async def test_disk_is_measured_once_what_was_removed_before_is_deleted(tmp_path: Path) -> None:
    host = Room(tmp_path, "a:1", seen=view())
    host.images.room, host.images.trash = FULL, 50
    assert (await host.room.tidy()).deleted == () and host.room.troubles == ()


async def test_policy_of_build_caches_is_told_at_each_look(tmp_path: Path) -> None:
    host = Room(tmp_path)
    heard: list[CacheKeeping] = []
    host.room.keep_cache = heard.append
    async with Supervisor("test") as supervisor:
        supervisor.start("room", host.room.run)
        for size in (1, 2):
            host.view = replace(view(), build_cache=CacheKeeping(max_size=size))
            host.room.bell.ring()
            await until(lambda: heard[-1:] == [host.view and host.view.build_cache], deadline=10)
    assert {one.max_size for one in heard} == {1, 2}, "and nothing before there is a view"


async def test_host_that_was_told_nothing_yet_removes_nothing(tmp_path: Path) -> None:
    host = Room(tmp_path, "a:1")
    host.images.room = FULL
    assert (await host.room.tidy()).deleted == () and len(host.images.images) == 1


async def test_disk_that_stays_full_is_a_trouble_until_there_is_room(tmp_path: Path) -> None:
    host = Room(tmp_path, "a:1", seen=view())
    host.images.room = FULL
    await host.room.tidy()
    assert "no image may go; 19B more" in host.room.troubles[0] and host.reports == 1
    await host.room.tidy()
    assert host.reports == 1
    host.images.room = Disk(capacity=100, free=50)
    await host.room.tidy()
    assert host.room.troubles == () and host.reports == 2


async def test_room_by_hand_goes_below_the_mark(tmp_path: Path) -> None:
    host = Room(tmp_path, "a:1", "b:1", seen=view())
    assert len((await host.room.tidy(to=49)).deleted) == 1
    assert host.room.troubles == ()


async def test_policy_is_followed_as_soon_as_images_come(tmp_path: Path) -> None:
    from aio.supervisor import Supervisor

    host = Room(tmp_path, "a:1", seen=view())
    async with Supervisor("test") as supervisor:
        supervisor.start("room", host.room.run)
        host.images.room = FULL
        host.room.bell.ring()
        await until(lambda: host.images.images == {}, deadline=5)
