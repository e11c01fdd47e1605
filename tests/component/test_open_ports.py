"""Which ports of services a host opens: what others have is left to them, what is open stays."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from agent.host import HostAgent
from model.ids import NetworkId, ServiceId
from model.spec import NetworkSpec, Publish, Subnet
from model.view import NetworkView, ServiceView, View, service_key
from net.host import INGRESS
from tests.support.agentlab import AgentLab
from tests.support.waiting import until

NET = NetworkId(INGRESS)
KEY = service_key(NET, ServiceId("web"))
TCP = Publish(target=80, published=8080, mode="ingress")
UDP = replace(TCP, protocol="udp")
BOTH = {("tcp", 8080), ("udp", 8080)}


def view(revision: int) -> View:
    spec = NetworkSpec(name=INGRESS, subnets=(Subnet(cidr="10.9.0.0/16"),), internal=True)
    network = NetworkView(id=NET, spec=spec, vni=9, blocks=("10.9.1.0/24",))
    services = {KEY: ServiceView(name="web", ports=(TCP, UDP))}
    return View(revision=revision, fleet_id="f", networks={NET: network}, services=services)


async def opens(lab: AgentLab, agent: HostAgent, *ports: Publish) -> None:
    """These, and the others are told as not open."""

    def settled() -> bool:
        service = lab.fakes[2].services.get(KEY)
        return service is not None and service.ports == ports

    await until(settled, deadline=5, what=f"{len(ports)} open ports")
    told = {(p.protocol, p.published) for p in {TCP, UDP} - set(ports)}
    assert set(agent.host_report().unpublished) == told


async def test_port_that_somebody_has_is_theirs_and_told_until_they_let_go(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.network.foreign_ports = {("tcp", 8080)}
    async with lab.agent() as agent:
        await agent.take_view(view(1))
        await opens(lab, agent, UDP)
        lab.network.foreign_ports = set()
        await agent.take_view(view(2))
        await opens(lab, agent, TCP, UDP)


async def test_open_port_stays_open_over_a_crash_and_is_anybodys_after_a_boot(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(1))
        await opens(lab, agent, TCP, UDP)
    lab.network.foreign_ports = set(BOTH)
    async with lab.agent() as agent:
        await opens(lab, agent, TCP, UDP)
    lab.reboot()
    lab.network.foreign_ports = {("udp", 8080)}
    async with lab.agent() as agent:
        await opens(lab, agent, TCP)
