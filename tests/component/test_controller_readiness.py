"""A fleet in memory: who is told of whom while replicas get well, ill, and are replaced."""

from __future__ import annotations

from model.api import CreateInstance, UpdateService
from model.records import Desired
from model.spec import (
    Attachment,
    ContainerSpec,
    HealthCheck,
    NetworkSpec,
    Replicated,
    ServiceSpec,
    TcpProbe,
)
from tests.support.agents import FakeAgent, make_host
from tests.support.fleet import Fleet, fleet
from tests.support.waiting import until

DEADLINE = 5.0


def web(image: str = "v1", replicas: int = 1) -> ServiceSpec:
    return ServiceSpec(
        name="web",
        container=ContainerSpec(
            image=image,
            networks=(Attachment(network="back"),),
            health=HealthCheck(probe=TcpProbe(port=80)),
        ),
        mode=Replicated(replicas=replicas),
    )


def told(agent: FakeAgent) -> list[bool]:
    """Whether each member that this host knows of is ready."""
    networks = agent.directory.networks if agent.directory is not None else {}
    return [member.ready for members in networks.values() for member in members.values()]


async def start(f: Fleet) -> tuple[FakeAgent, FakeAgent]:
    """A service of one replica, and a container that asks it from the other host."""
    await f.controller.create_network(NetworkSpec(name="back"))
    for host in f.hosts.values():
        host.first_health = "starting"
    await f.controller.create_service(web())
    agents = list(f.agents.values())
    await until(lambda: any(a.host.statuses for a in agents), deadline=DEADLINE)
    serving, asking = sorted(agents, key=lambda a: not a.host.statuses)
    return serving, asking


async def test_health_of_a_replica_is_told_to_all_hosts_and_counts_in_lists() -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        serving, _ = await start(f)
        await until(lambda: told(serving) == [False], deadline=DEADLINE)
        assert f.controller.get_service("web").running == 0
        [ident] = serving.host.statuses
        await serving.look(ident, "healthy")
        await until(lambda: told(serving) == [True], deadline=DEADLINE)
        assert f.controller.get_service("web").running == 1
        await serving.look(ident, "unhealthy")
        await until(lambda: told(serving) in ([False], []), deadline=DEADLINE)
        await until(lambda: f.controller.get_service("web").service.conditions, deadline=DEADLINE)
        message = "an instance does not stay up: it is unhealthy"
        assert message in f.controller.get_service("web").service.conditions[0].message
        assert message in str(f.controller.why("web"))


async def test_replica_that_is_to_go_may_drain_once_the_other_hosts_avoid_it() -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        serving, asking = await start(f)
        [ident] = serving.host.statuses
        await serving.look(ident, "healthy")
        # so that the other host carries the network
        spec = ContainerSpec(image="asker", networks=(Attachment(network="back"),))
        name = asking.host.facts.hostname
        await f.controller.create_instance(CreateInstance(spec=spec, host=name, start=True))
        await until(lambda: True in told(asking), deadline=DEADLINE)
        asking.host.behind = serving.host.slow = True
        await f.controller.scale_service("web", 0)
        await until(lambda: told(asking).count(True) == 1, deadline=DEADLINE, what="asker alone is ready")
        assert serving.departing == set()
        asking.host.behind = False
        await f.controller.create_instance(CreateInstance(spec=spec, host=name, start=True))
        await until(lambda: serving.departing == {ident}, deadline=DEADLINE)


async def test_replica_does_not_wait_for_a_host_that_is_out_of_session() -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        serving, asking = await start(f)
        [ident] = serving.host.statuses
        await serving.look(ident, "healthy")
        spec = ContainerSpec(image="asker", networks=(Attachment(network="back"),))
        name = asking.host.facts.hostname
        await f.controller.create_instance(CreateInstance(spec=spec, host=name, start=True))
        await until(lambda: True in told(asking), deadline=DEADLINE)
        asking.host.behind = serving.host.slow = True
        await f.controller.scale_service("web", 0)
        await until(lambda: told(asking).count(True) == 1, deadline=DEADLINE)
        f.disconnect(asking.host.id)
        await until(lambda: serving.departing == {ident}, deadline=DEADLINE)


async def test_rollback_brings_the_last_spec_back() -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_network(NetworkSpec(name="back"))
        await f.controller.create_service(web())
        await until(lambda: f.controller.get_service("web").running == 1, deadline=DEADLINE)
        await f.controller.update_service("web", UpdateService(spec=web("v2")))
        await until(lambda: images(f) == ["v2"], deadline=DEADLINE)
        info = await f.controller.rollback_service("web")
        assert info.service.spec.container.image == "v1" and info.service.rollout is not None
        assert info.service.rollout.state == "rollback_started"
        await until(lambda: images(f) == ["v1"], deadline=DEADLINE)


def images(f: Fleet) -> list[str]:
    info = f.controller.get_service("web")
    ready = info.running == info.wanted
    return [i.instance.spec.image for i in info.instances if i.instance.desired is Desired.RUNNING and ready]
