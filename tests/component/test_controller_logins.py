"""Logins that the controller keeps: given to who pulls, replaced, gone with what they were kept for."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.store.sqlite import SqliteStore
from model.api import CreateInstance, UpdateService
from model.codec import encode_json
from model.errors import NotFound
from model.ids import HostId
from model.registries import NOBODY, Login
from model.spec import ContainerSpec, Replicated, ServiceSpec
from tests.support.agents import make_host
from tests.support.fleet import Fleet, fleet
from tests.support.waiting import until

ADA, EVE = Login(user="ada", password="first-canary"), Login(user="eve", password="second-canary")
SPEC = ContainerSpec(image="a.example/app:1")
WEB = ServiceSpec(name="web", container=SPEC, mode=Replicated(replicas=2))


async def running(f: Fleet, count: int = 2) -> None:
    await until(lambda: f.controller.get_service("web").running == count, deadline=5)


def logins(f: Fleet) -> int:
    return len(f.controller.snapshot().logins)


async def test_every_host_of_a_service_gets_its_login_and_no_other_host_does() -> None:
    async with fleet(make_host(1), make_host(2), make_host(3)) as f:
        await f.controller.create_service(WEB, ADA)
        await running(f)
        instances = [info.instance for info in f.controller.get_service("web").instances]
        for instance in instances:
            assert instance.host is not None
            assert f.controller.login_for_pull(instance.host, instance.id) == ADA
        used = {instance.host for instance in instances}
        other = next(host for host in f.controller.snapshot().hosts if host not in used)
        with pytest.raises(NotFound):
            f.controller.login_for_pull(HostId(other), instances[0].id)


async def test_update_brings_a_new_login_and_without_one_keeps_the_old() -> None:
    async with fleet(make_host(1)) as f:
        made = await f.controller.create_service(WEB, ADA)
        await running(f)
        three = UpdateService(spec=ServiceSpec(name="web", container=SPEC, mode=Replicated(replicas=3)))
        await f.controller.update_service("web", three)
        await running(f, 3)
        instance = f.controller.get_service("web").instances[0].instance
        assert instance.host is not None
        assert f.controller.login_for_pull(instance.host, instance.id) == ADA
        await f.controller.update_service("web", three, EVE)
        assert f.controller.login_for_pull(instance.host, instance.id) == EVE
        assert list(f.controller.snapshot().logins) == [made.service.id]


async def test_login_goes_when_its_service_has_gone() -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_service(WEB, ADA)
        await running(f)
        await f.controller.remove_service("web")
        await until(lambda: not f.controller.list_services() and not logins(f), deadline=5)


async def test_login_goes_when_its_container_has_gone() -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_instance(CreateInstance(spec=SPEC, name="one"), ADA)
        await f.controller.create_instance(CreateInstance(spec=SPEC, name="two"))
        assert logins(f) == 1
        await f.controller.remove_instance("one", force=True, volumes=False)
        await until(lambda: not logins(f), deadline=5)
        two = f.controller.get_instance("two").instance
        assert two.host is not None and f.controller.login_for_pull(two.host, two.id) == NOBODY


async def test_login_is_in_nothing_that_is_told() -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_service(WEB, ADA)
        await running(f)
        told = encode_json([f.controller.get_service("web"), *f.controller.list_instances()])
        assert b"canary" not in told and b"sealed" not in told and b"ada" not in told


async def test_store_file_holds_no_login_that_can_be_read(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    async with fleet(make_host(1), store=store) as f:
        await f.controller.create_service(WEB, ADA)
        await running(f)
        assert logins(f) == 1
    await store.close()
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert b"login" in data and b"canary" not in data
    again = await SqliteStore.open(tmp_path)
    assert len(again.snapshot().logins) == 1
    await again.close()
