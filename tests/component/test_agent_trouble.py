"""What an agent complains of, and when that ends."""

from __future__ import annotations

from pathlib import Path

from model.errors import DeadlineExceeded
from model.ids import NetworkId
from model.records import ResolvedAttachment
from model.spec import NetworkSpec, Subnet
from model.status import Phase
from model.view import NetworkView, View
from net.host import Drift
from tests.support.agentlab import AgentLab, ident, instance, phase, view, wish
from tests.support.waiting import until

ONE = NetworkId("1" * 64)
SUBNET = Subnet(cidr="10.21.0.0/24")
NETWORK = NetworkView(
    id=ONE, spec=NetworkSpec(name="one", driver="bridge", subnets=(SUBNET,)), vni=0, blocks=(SUBNET.cidr,)
)


async def test_trouble_of_networks_ends_with_what_was_in_their_way(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    box = wish(instance(1), attachments=(ResolvedAttachment(network=ONE),))
    network = lab.fakes[2]
    network.trouble = "cannot add vxlan flx1: another link has the VXLAN number 5"
    async with lab.agent() as agent:
        await agent.take_view(
            View(revision=1, instances={box.id: box}, networks={ONE: NETWORK}, fleet_id="f")
        )
        assert agent.host_report().conditions == (f"network: {network.trouble}",)
        before = network.applied
        network.drift(Drift(object="network", action="not repaired: still there", failed=True))
        network.trouble = ""
        network.drift(Drift(object="vxlan flx1", action="was missing, made again"))
        await until(lambda: not agent.host_report().conditions, deadline=5)
        assert network.applied == before + 1
        network.drift(Drift(object="vxlan flx1", action="was missing, made again"))
        await phase(agent, 1, Phase.RUNNING)
        assert network.applied == before + 1, "without trouble nothing is applied again"


async def test_container_of_nobody_that_can_not_be_removed_is_told_and_holds_up_nothing(
    tmp_path: Path,
) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(1), instance(2)))
        for number in (1, 2):
            await phase(agent, number, Phase.RUNNING)
    (tmp_path / "state" / "journal.db").unlink()
    lab.runtime.fail("delete", DeadlineExceeded("it did not die within 10 s of SIGKILL"))
    async with lab.agent() as agent:
        (told,) = agent.host_report().conditions
        assert told.startswith(f"container {ident(1)[:12]}") and "did not die within 10 s" in told
        assert list(await lab.runtime.list()) == [ident(1)]
        assert list(lab.fakes[1].made) == [ident(1)], "nothing goes from under a process that lives"
        await agent.take_view(view(instance(3)))
        await phase(agent, 3, Phase.RUNNING)
    async with lab.agent() as agent:
        assert not agent.host_report().conditions
        assert list(await lab.runtime.list()) == [ident(3)]
