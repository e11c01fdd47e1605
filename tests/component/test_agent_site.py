"""Addresses on a site's own network, where strangers may have them; over fakes."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from model.ids import NetworkId
from model.records import Instance, ResolvedAttachment
from model.spec import NetworkSpec, Publish, Subnet
from model.status import HostFacts, Nic, Phase
from model.view import NetworkView, Peer, View
from net.policy import HostPolicies
from tests.support.agentlab import HOST, AgentLab, ident, instance, phase, wish
from tests.support.waiting import until

LAN = NetworkId("1" * 64)
SPEC = NetworkSpec(
    name="lan",
    driver="macvlan",
    subnets=(Subnet(cidr="192.0.2.0/24", gateway="192.0.2.1", ip_range="192.0.2.128/25"),),
    options={"parent": "eth0"},
)
NEIGHBOUR = Peer(host=HOST, name="n2", address="198.18.0.12", addresses=("192.0.2.130",))
MAC = "02:00:00:00:00:99"


def lan(parent: str = "eth0") -> NetworkView:
    return NetworkView(id=LAN, spec=SPEC, vni=0, blocks=("192.0.2.128/28",), parent=parent)


def box(number: int = 1, ipv4: str = "", **spec: object) -> Instance:
    made = instance(number, **spec)
    return wish(made, attachments=(ResolvedAttachment(network=LAN, ipv4=ipv4),))


def view(*instances: Instance, network: NetworkView | None = None, revision: int = 1) -> View:
    found = network or lan()
    return View(
        revision=revision,
        instances={i.id: i for i in instances},
        networks={LAN: found},
        peers={NEIGHBOUR.host: NEIGHBOUR},
        fleet_id="f",
    )


async def test_address_of_a_stranger_is_set_aside_told_and_the_next_one_taken(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.network.strangers = {"192.0.2.129": MAC, "192.0.2.131": MAC}
    async with lab.agent() as agent:
        await agent.take_view(view(box()))
        status = await phase(agent, 1, Phase.RUNNING)
        assert [e.ipv4 for e in status.endpoints] == ["192.0.2.132"], "130 is a host's own"
        assert {a for _, a in agent.context.addresses.held()} == {"192.0.2.132"}
        report = agent.host_report()
        assert [(s.address, s.mac) for s in report.strangers] == [("192.0.2.129", MAC), ("192.0.2.131", MAC)]
        events = (await agent.reporter.next()).events
        told = [e.attributes["address"] for e in events if e.action == "address-taken"]
        assert told == ["192.0.2.129", "192.0.2.131"]
        await agent.take_view(view(box(), box(2), revision=2))
        second = await phase(agent, 2, Phase.RUNNING)
        assert second.endpoints[0].ipv4 == "192.0.2.133", "what strangers have is not asked about again"


async def test_address_that_was_asked_for_and_a_stranger_has_fails_with_its_mac(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.network.strangers = {"192.0.2.140": MAC}
    async with lab.agent() as agent:
        await agent.take_view(view(box(ipv4="192.0.2.140")))
        status = await phase(agent, 1, Phase.FAILED, Phase.EXITED)
        assert MAC in status.message and "192.0.2.140" in status.message
        assert not lab.network.endpoints


async def test_ports_are_not_published_where_the_way_out_is_the_sites_router(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(box(ports=(Publish(target=80, published=8080, mode="host"),))))
        status = await phase(agent, 1, Phase.FAILED, Phase.EXITED)
        assert "can't be published" in status.message and not lab.network.published


async def test_host_that_loses_the_link_says_so_and_no_longer_when_it_is_back(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    there = HostFacts(hostname="lab", address="192.0.2.11", nics=(Nic(name="eth0"),))
    async with lab.agent() as agent:
        agent.context.facts = there
        await agent.take_view(view(box()))
        await phase(agent, 1, Phase.RUNNING)
        assert agent.host_report().conditions == ()
        await agent.resettle(replace(there, nics=()))
        assert agent.host_report().conditions == ("network lan: this host has no link eth0 that is up",)
        await agent.resettle(there)
        await until(lambda: agent.host_report().conditions == (), deadline=20, what="all is well")
        assert lab.network.policies == HostPolicies() and ident(1) in agent.workers
