"""Policies of endpoints on the site's own network as a table inside the container, and when it is set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from model.errors import CommandFailed
from model.ids import HostId, InstanceId, NetworkId
from model.policy import Party, PolicyPeer, PolicyRule, PolicySpec, Selector
from model.spec import NetworkSpec, Subnet
from model.status import Nic
from model.view import NetworkView
from net import innerchains
from net.diff import Op, Operation
from net.host import AddressTaken, Drift, EndpointRequest, NetworkPlan
from net.kernel.fake import FakeKernel, without_link
from net.naming import shim_name, veth_name
from net.policy import HostPolicies, Place, endpoint_key, host_policies
from net.proxying import FakeProxy
from net.reconciler import NetReconciler
from net.state import Foot, Link
from tests.support.waiting import until

LAN, ONE = NetworkId("a" * 64), InstanceId("1" * 64)
FOOT = EndpointRequest(instance=ONE, network=LAN, ifname="eth0", ipv4="192.0.2.130", ipv6="2001:db8::109")
SUBNETS = (Subnet(cidr="192.0.2.0/24", gateway="192.0.2.1"), Subnet(cidr="2001:db8::/64"))
HOSTS = {LAN: ("192.0.2.129", "2001:db8::100")}
CLOSED = PolicySpec(
    name="in",
    selects=Selector(container="web"),
    ingress=(PolicyRule(peers=(PolicyPeer(cidr="192.0.2.64/26"),)),),
)


def policies(*specs: PolicySpec) -> HostPolicies:
    party = Party(name="web", network=LAN, network_name="lan", ipv4=FOOT.ipv4, ipv6=FOOT.ipv6)
    place = Place(network=LAN, name="lan", subnets=tuple(s.cidr for s in SUBNETS), parties=(party,))
    return host_policies(specs, {endpoint_key(ONE, LAN): party}, {LAN: place})


def plan(*specs: PolicySpec) -> NetworkPlan:
    spec = NetworkSpec(name="lan", driver="macvlan", subnets=SUBNETS, options={"parent": "eth0"})
    blocks = ("192.0.2.128/28", "2001:db8::100/120")
    view = NetworkView(id=LAN, spec=spec, vni=0, blocks=blocks, parent="eth0")
    return NetworkPlan(
        host=HostId("f" * 64),
        address="198.18.0.11",
        mtu=1500,
        vxlan_port=4789,
        networks={LAN: view},
        peers={},
        nics=(Nic(name="eth0"),),
        policies=policies(*specs),
    )


def test_container_that_no_policy_selects_has_no_table() -> None:
    assert innerchains.table(policies(), (FOOT,), HOSTS) is None


def test_table_judges_what_its_interfaces_get_and_lets_the_host_in() -> None:
    made = innerchains.table(policies(CLOSED), (FOOT,), HOSTS)
    assert made is not None
    (name,) = (chain for chain in made.chains if chain.startswith("in-"))
    assert made.sets[f"{name}-a4"].elements == {"192.0.2.64/26": ""}
    texts = [rule.text for rule in made.chains["enter"].rules]
    assert texts[:2] == ["ip saddr { 192.0.2.129 } accept", "ip6 saddr { 2001:db8::100 } accept"]
    assert texts[2:] == [f'iifname "eth0" jump {name}'], "whatever address of its own is asked"
    assert not any("jump" in rule.text for rule in made.chains["leave"].rules), "what it sends is open"


def test_table_judges_each_interface_by_its_own_class() -> None:
    other = replace(FOOT, network="b" * 64, ifname="net1", ipv4="198.51.100.2", ipv6="")
    shut = PolicySpec(name="shut", selects=Selector(container="web"), egress=())
    made = innerchains.table(policies(CLOSED, shut), (FOOT, other), HOSTS)
    assert made is not None
    judged = [rule.text for chain in ("enter", "leave") for rule in made.chains[chain].rules]
    found = [text.rpartition("-")[0] for text in judged if "jump" in text]
    assert found == ['iifname "eth0" jump in', 'oifname "eth0" jump out'], "net1 is of no class"


async def test_policies_stand_before_the_link_and_go_with_the_last(tmp_path: Path) -> None:
    kernel = FakeKernel()
    network = NetReconciler(tmp_path, kernel=kernel, proxy=FakeProxy())
    await network.start()
    await network.apply(plan(CLOSED))
    space = await network.open_namespace(ONE)
    kernel.strangers = {"192.0.2.130": "02:00:00:00:00:99"}
    with pytest.raises(AddressTaken, match="02:00:00:00:00:99"):
        await network.attach(FOOT)
    assert 'iifname "eth0" jump in-' in kernel.fences[space] and not network.attached(ONE)
    assert veth_name(ONE, LAN) not in kernel.state.links
    kernel.strangers = {}
    endpoint = await network.attach(FOOT)
    assert endpoint.resolver == "192.0.2.128" and not kernel.state.links[veth_name(ONE, LAN)].bare
    await network.police(HostPolicies())
    assert kernel.fences[space] == "add table inet flota\ndelete table inet flota\n"
    await network.apply(plan(CLOSED))
    assert 'iifname "eth0" jump in-' in kernel.fences[space]
    await network.detach(ONE, LAN)
    assert veth_name(ONE, LAN) not in kernel.state.links
    await network.close()


class Watching(FakeKernel):
    """Remembers whether a namespace had policies when a link came into it."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[bool] = []

    async def apply(self, operations: Sequence[Operation]) -> None:
        links = [op.item for op in operations if isinstance(op, Op) and op.verb != "remove"]
        feet = [link.foot for link in links if isinstance(link, Link)]
        self.closed += [foot.namespace in self.fences for foot in feet if foot is not None]
        await super().apply(operations)


@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
async def test_endpoint_that_nobody_is_asked_about_has_policies_before_its_address(
    tmp_path: Path, mode: str
) -> None:
    kernel = Watching()
    network = NetReconciler(tmp_path, kernel=kernel, proxy=FakeProxy())
    await network.start()
    closed = plan(CLOSED)
    spec = NetworkSpec(name="lan", driver="ipvlan", subnets=SUBNETS, options={"parent": "eth0", "mode": mode})
    await network.apply(replace(closed, networks={LAN: replace(closed.networks[LAN], spec=spec)}))
    space = await network.open_namespace(ONE)
    await network.attach(FOOT)
    assert kernel.closed and all(kernel.closed)
    assert 'iifname "eth0" jump in-' in kernel.fences[space]
    await network.close()


async def test_namespace_made_anew_on_a_known_path_has_policies_and_endpoints_again(tmp_path: Path) -> None:
    kernel = Watching()
    network = NetReconciler(tmp_path, kernel=kernel, proxy=FakeProxy())
    await network.start()
    await network.apply(plan(CLOSED))
    path = Path(await network.open_namespace(ONE))
    await network.attach(FOOT)
    kernel.spaces.discard(path)
    kernel.deserted.add(path)
    kernel.state = without_link(kernel.state, veth_name(ONE, LAN))
    kernel.fences.clear()
    del kernel.closed[:]
    assert await network.open_namespace(ONE) == str(path)
    assert path in kernel.spaces and network.attached(ONE) == []
    await network.attach(FOOT)
    assert veth_name(ONE, LAN) in kernel.state.links, "it was not kept for what is gone"
    assert kernel.closed and all(kernel.closed)
    await network.close()


async def test_namespace_that_a_container_lives_in_is_held_again_when_it_is_opened(tmp_path: Path) -> None:
    kernel = FakeKernel()
    network = NetReconciler(tmp_path, kernel=kernel, proxy=FakeProxy())
    await network.start()
    await network.apply(plan(CLOSED))
    path = Path(await network.open_namespace(ONE))
    await network.attach(FOOT)
    kernel.spaces.discard(path)
    await network.open_namespace(ONE)
    assert path in kernel.spaces and network.attached(ONE) == [LAN]
    await network.close()


async def test_kernel_that_lacks_the_kind_is_told_and_other_work_goes_on(tmp_path: Path) -> None:
    kernel = FakeKernel()
    kernel.kinds = set()
    network = NetReconciler(tmp_path, kernel=kernel, proxy=FakeProxy())
    await network.start()
    with pytest.raises(CommandFailed, match="macvlan"):
        await network.apply(plan())
    await network.open_namespace(ONE)
    with pytest.raises(CommandFailed, match="macvlan"):
        await network.attach(FOOT)
    kernel.kinds = {"macvlan"}
    await network.apply(plan())
    assert (await network.attach(FOOT)).ipv4 == "192.0.2.130"
    await network.close()


async def test_container_whose_own_filter_can_not_be_set_holds_up_nothing_else(tmp_path: Path) -> None:
    class Refusing(FakeKernel):
        async def fence(self, namespace: str, script: str) -> None:
            if namespace.endswith(ONE) and refusing:
                raise CommandFailed("nft refused")
            await super().fence(namespace, script)

    refusing, kernel = False, Refusing()
    network = NetReconciler(tmp_path, kernel=kernel, proxy=FakeProxy())
    await network.start()
    await network.apply(plan())
    other = InstanceId("2" * 64)
    for instance, ipv4 in ((ONE, "192.0.2.130"), (other, "192.0.2.131")):
        await network.open_namespace(instance)
        await network.attach(replace(FOOT, instance=instance, ipv4=ipv4, ipv6=""))
    kernel.strike(lambda state: replace(state, addresses=frozenset()))
    refusing = True
    with pytest.raises(CommandFailed, match="nft refused"):
        await network.apply(replace(plan(CLOSED), mtu=1400))
    assert kernel.state.addresses, "the rest is as it should be"
    with pytest.raises(CommandFailed, match="nft refused"):
        await network.police(policies(CLOSED))
    refusing = False
    await network.police(policies(CLOSED))
    assert 'iifname "eth0" jump in-' in kernel.fences[str(tmp_path / "ns" / ONE)]
    await network.close()


async def test_own_address_that_a_machine_of_the_site_has_too_is_told(tmp_path: Path) -> None:
    kernel, told = FakeKernel(), list[Drift]()
    kernel.strangers = {"192.0.2.128": "02:00:00:00:00:99"}
    network = NetReconciler(tmp_path, kernel=kernel, proxy=FakeProxy())
    network.on_drift(told.append)
    await network.start()
    await network.apply(plan())
    await until(lambda: bool(told), deadline=2, what="it is told")
    assert told[0].object == "address 192.0.2.128 of network lan" and "02:00:00:00:00:99" in told[0].action
    await network.apply(replace(plan(), mtu=1400))
    await network.apply(plan())
    assert len(told) == 1, "once is enough"
    await network.close()


async def test_question_that_failed_is_asked_again_with_the_next_plan(tmp_path: Path) -> None:
    class Deaf(FakeKernel):
        deaf = 0

        async def ask(self, foot: Foot) -> Mapping[str, str]:
            if foot.ifname == shim_name(LAN) and self.strangers == {}:
                self.deaf += 1
                raise CommandFailed("the link is down")
            return await super().ask(foot)

    kernel, told = Deaf(), list[Drift]()
    network = NetReconciler(tmp_path, kernel=kernel, proxy=FakeProxy())
    network.on_drift(told.append)
    await network.start()
    for mtu in (1500, 1400):
        await network.apply(replace(plan(), mtu=mtu))
        await until(lambda mtu=mtu: kernel.deaf == (1500, 1400).index(mtu) + 1, deadline=2)  # type: ignore[misc]
    assert [drift.action for drift in told] == ["not asked about: the link is down"], "once is enough"
    kernel.strangers = {"192.0.2.128": "02:00:00:00:00:99"}
    await network.apply(plan())
    await until(lambda: len(told) == 2, deadline=2, what="the answer")
    await network.close()
