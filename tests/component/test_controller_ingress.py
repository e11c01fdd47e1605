"""Published ports of services through the controller's port: entries follow services, hosts and labels."""

from __future__ import annotations

import pytest

from controller import ingress
from controller.addressing import QUARANTINE
from model.api import UpdateHost, UpdateService
from model.errors import InUse
from model.spec import ContainerSpec, Publish, Replicated, ServiceSpec
from model.view import View
from tests.support.agents import make_host
from tests.support.fleet import Fleet, fleet
from tests.support.waiting import until

DEADLINE = 5.0


def spec(name: str, *ports: Publish) -> ServiceSpec:
    container = ContainerSpec(image="busybox", ports=ports)
    return ServiceSpec(name=name, container=container, mode=Replicated(replicas=2))


def port(published: int, *on: str) -> Publish:
    return Publish(target=80, published=published, mode="ingress", on=on)


def opened(f: Fleet) -> dict[str, set[int]]:
    """By host name: the ports that its agent was told to open."""
    found = {}
    for ident, host in f.hosts.items():
        view: View = f.agents[ident].view
        found[host.facts.hostname] = {
            p.published for key, s in view.services.items() if key.startswith("ingress/") for p in s.ports
        }
    return found


async def opens(f: Fleet, **wanted: set[int]) -> None:
    await until(lambda: opened(f) == wanted, deadline=DEADLINE, what=f"{wanted} to be told")


async def test_ports_are_told_to_all_hosts_or_to_chosen_ones_and_taken_back() -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        await f.controller.create_service(spec("web", port(8080)))
        await opens(f, host1={8080}, host2={8080})
        with pytest.raises(InUse, match="published by service web"):
            await f.controller.create_service(spec("other", port(8080)))
        chosen = UpdateService(spec=spec("web", port(8080, "node.labels.edge==true")))
        before = {i.instance.id for i in f.controller.get_service("web").instances}
        await f.controller.update_service("web", chosen)
        await opens(f, host1=set(), host2=set())
        await f.controller.update_host("host2", UpdateHost(labels_set={"edge": "true"}))
        await opens(f, host1=set(), host2={8080})
        assert {i.instance.id for i in f.controller.get_service("web").instances} == before
        await f.controller.remove_service("web")
        await opens(f, host1=set(), host2=set())


async def test_blocks_of_entries_rest_and_end_once_nothing_is_published() -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_service(spec("web", port(0)))
        await opens(f, host1={ingress.FIRST_PORT})
        await f.controller.remove_service("web")
        await until(lambda: not f.controller.snapshot().instances, deadline=DEADLINE, what="nothing left")

        def blocks() -> list[float]:
            known = f.controller.get_network("ingress").blocks
            return [block.quarantined_until for block in known]

        await until(lambda: all(blocks()), deadline=DEADLINE, what="rest")
        await f.clock.advance(QUARANTINE + 1)  # type: ignore[attr-defined]
        await until(lambda: not blocks(), deadline=DEADLINE, what="no blocks")
