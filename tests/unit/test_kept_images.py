"""Which images hosts are told to keep for services, and how they hear of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from controller.commands import services
from controller.commands.settings import update as update_settings
from controller.keptimages import formerly, kept
from controller.plan import Plan
from controller.snapshot import Cluster
from controller.views import affected, view_of
from model.api import UpdateService, UpdateSettings
from model.buildcache import CacheKeeping
from model.errors import InvalidInput
from model.ids import HostId, ServiceId
from model.image import ImageKeeping, KeptImages
from model.records import FleetSettings, Service
from model.settingrules import MOST_KEPT
from model.spec import Attachment, ContainerSpec, Replicated, ServiceSpec
from model.view import apply, diff

WEB = ServiceId("w" * 64)


def spec(image: str, replicas: int = 1) -> ServiceSpec:
    container = ContainerSpec(image=image, networks=(Attachment(network="none"),))
    return ServiceSpec(name="web", container=container, mode=Replicated(replicas=replicas))


class Fleet:
    """A cluster that commands are done on."""

    def __init__(self, *records: Any) -> None:
        self.cluster = Cluster().apply((FleetSettings(fleet_id="f", revision=1), *records), (), 1)[0]
        self.told: list[set[HostId] | None] = []

    def do(self, plan: Plan) -> None:
        revision = self.cluster.revision + 1
        puts = [replace(item.record, revision=revision) for item in plan.items if not item.delete]
        deletes = [item.record for item in plan.items if item.delete]
        self.cluster, changes = self.cluster.apply(puts, deletes, revision)
        self.told = [affected(self.cluster, change) for change in changes]

    def deploy(self, image: str) -> None:
        if WEB not in self.cluster.services:
            self.do(services.create(self.cluster, spec(image), now=1.0, ident=WEB))
        else:
            self.do(services.update(self.cluster, WEB, UpdateService(spec=spec(image)), 1.0))

    def kept(self) -> tuple[str, ...]:
        found = view_of(self.cluster, HostId("any")).kept_images.get(WEB)
        return () if found is None else found.images


def test_every_host_keeps_the_last_images_of_a_service_the_present_one_first() -> None:
    fleet = Fleet()
    for number in range(1, 6):
        fleet.deploy(f"app:{number}")
        assert fleet.told == [None]
    assert fleet.kept() == ("app:5", "app:4", "app:3")


def test_image_that_comes_back_is_counted_once() -> None:
    fleet = Fleet()
    for image in ("app:1", "app:2", "app:1", "app:3"):
        fleet.deploy(image)
    assert fleet.kept() == ("app:3", "app:1", "app:2")


def test_image_that_a_rollback_needs_stays_whatever_is_set() -> None:
    fleet = Fleet()
    fleet.do(update_settings(fleet.cluster, UpdateSettings(image_keep=1), 1.0))
    fleet.deploy("app:1")
    fleet.deploy("app:2")
    assert fleet.kept() == ("app:2", "app:1")
    fleet.do(services.rollback(fleet.cluster, WEB, 2.0))
    assert fleet.kept() == ("app:1", "app:2")


def test_change_that_leaves_the_image_tells_nobody_who_need_not_know() -> None:
    fleet = Fleet()
    fleet.deploy("app:1")
    before = fleet.cluster.kept_images
    fleet.do(services.scale(fleet.cluster, WEB, 3, 2.0))
    assert fleet.told == [set()] and fleet.cluster.kept_images is before


def test_removed_service_keeps_nothing() -> None:
    fleet = Fleet()
    fleet.deploy("app:1")
    fleet.do(services.remove(fleet.cluster, WEB, 2.0))
    assert fleet.told == [None] and fleet.kept() == ()


def test_setting_changes_what_all_services_keep() -> None:
    fleet = Fleet()
    for number in range(1, 6):
        fleet.deploy(f"app:{number}")
    fleet.do(update_settings(fleet.cluster, UpdateSettings(image_keep=4, image_gc_high=90), 1.0))
    assert fleet.kept() == ("app:5", "app:4", "app:3", "app:2")
    assert view_of(fleet.cluster, HostId("any")).keeping == ImageKeeping(gc_high=90, keep=4)


def test_setting_of_build_caches_is_part_of_every_view() -> None:
    fleet = Fleet()
    one = view_of(fleet.cluster, HostId("any"))
    change = UpdateSettings(build_cache_size=5, build_cache_free=20)
    fleet.do(update_settings(fleet.cluster, change, 1.0))
    fleet.do(update_settings(fleet.cluster, UpdateSettings(build_cache_age=0.0), 2.0))
    two = view_of(fleet.cluster, HostId("any"))
    assert two.build_cache == CacheKeeping(max_size=5, max_age=0.0, min_free=20)
    assert two.keeping == one.keeping and apply(diff(one, two), one) == two
    assert diff(two, two).build_cache is None


def test_memory_of_former_images_is_bounded() -> None:
    service = Service(id=WEB, spec=spec("app:0"))
    for number in range(1, 3 * MOST_KEPT):
        image = f"app:{number}"
        service = replace(service, former_images=formerly(service, image), spec=spec(image))
    assert len(service.former_images) == MOST_KEPT
    assert kept(service, 2) == KeptImages(service="web", images=(image, f"app:{number - 1}"))


def test_view_of_kept_images_changes_by_difference() -> None:
    fleet = Fleet()
    fleet.deploy("app:1")
    one = view_of(fleet.cluster, HostId("any"))
    fleet.do(update_settings(fleet.cluster, UpdateSettings(image_gc_low=10), 1.0))
    fleet.deploy("app:2")
    two = view_of(fleet.cluster, HostId("any"))
    fleet.do(services.remove(fleet.cluster, WEB, 2.0))
    three = view_of(fleet.cluster, HostId("any"))
    assert apply(diff(one, two), one) == two and apply(diff(two, three), two) == three
    assert diff(two, three).gone_kept_images == (WEB,)


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (UpdateSettings(image_gc_high=0), "image_gc_high"),
        (UpdateSettings(image_gc_high=101), "image_gc_high"),
        (UpdateSettings(image_gc_high=60), "image_gc_low"),
        (UpdateSettings(image_gc_low=-1), "image_gc_low"),
        (UpdateSettings(image_keep=0), "image_keep"),
        (UpdateSettings(image_keep=MOST_KEPT + 1), "image_keep"),
        (UpdateSettings(image_min_age=-1.0), "image_min_age"),
        (UpdateSettings(build_cache_size=-1), "build_cache_size"),
        (UpdateSettings(build_cache_age=-1.0), "build_cache_age"),
        (UpdateSettings(build_cache_age=float("inf")), "build_cache_age"),
        (UpdateSettings(build_cache_free=100), "build_cache_free"),
        (UpdateSettings(build_cache_free=-1), "build_cache_free"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(request_: UpdateSettings, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        update_settings(Fleet().cluster, request_, 1.0)
