"""Images that hosts get ahead, over a host's own API: what it is asked for, and what it is not."""

from __future__ import annotations

from api.channels import Pipe
from controller.pipes import Pipes
from controller.prepulling import pulled
from controller.reconcile.prepull import Prepull
from model.ids import HostId, ServiceId
from model.registries import NOBODY
from tests.support.fakeports import FakeFleet

IMAGE = "registry.example/app@sha256:" + "2" * 64


class _Ways(Pipes):
    def __init__(self, fleet: FakeFleet) -> None:
        super().__init__()
        self._fleet = fleet

    async def open(self, host: HostId, name: str) -> Pipe:
        return await self._fleet.open_pipe(host)


async def test_a_host_that_has_the_image_is_not_sent_to_its_registry() -> None:
    """Which may be away when a service goes back to what it was."""
    async with FakeFleet() as fleet:
        host = next(iter(fleet.hosts.values()))
        pull = Prepull(service=ServiceId("web"), rollout=1.0, image=IMAGE, host=host.id)
        assert await pulled(_Ways(fleet), pull, "n1", NOBODY) == ""
        assert await pulled(_Ways(fleet), pull, "n1", NOBODY) == ""
        assert host.pulls == [(IMAGE, "")]


async def test_an_image_is_got_ahead_for_the_platform_that_the_service_wants() -> None:
    async with FakeFleet() as fleet:
        host = next(iter(fleet.hosts.values()))
        pull = Prepull(
            service=ServiceId("web"), rollout=1.0, image=IMAGE, host=host.id, platform="linux/arm64"
        )
        assert await pulled(_Ways(fleet), pull, "n1", NOBODY) == ""
        assert host.pulls == [(IMAGE, "linux/arm64")]
