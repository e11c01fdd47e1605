"""The reconciler on a kernel in memory: repairs, restarts, services, ports, and no change without need."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from model.errors import CommandFailed, InUse
from net.convergence import Convergence
from net.diff import NftOp, Operation
from net.endpoint import InstanceNetwork
from net.flows import Connection
from net.host import Drift
from net.hostfirewall import GATE, NO_FIREWALL, HostFirewall, Step
from net.kernel.fake import FakeKernel, without_link
from net.loadbalance import ElementChange, Flow, Ledger, pack
from net.naming import bridge_name, vxlan_name
from net.policy import HostPolicies, compiled
from net.proxying import FakeProxy
from net.reconciler import NetReconciler
from net.servicechains import Frame
from net.serving import Serving
from net.state import NetState
from tests.support.manypeers import large_plan
from tests.support.netplans import NETWORK, ONE, TWO, foot, plan, ports, proxied, service
from tests.support.waiting import until


async def test_reconciler_goes_on_past_what_the_kernel_refuses_and_says_so(tmp_path: Path) -> None:
    kernel = FakeKernel()
    network = NetReconciler(tmp_path, kernel=kernel)
    await network.start()
    kernel.refused.add(f"vxlan {vxlan_name(NETWORK)}")
    with pytest.raises(CommandFailed, match="vxlan"):
        await network.apply(plan())
    assert bridge_name(NETWORK) in kernel.state.links
    assert kernel.state.tables and kernel.state.sysctls["net/ipv4/ip_forward"] == "1"
    await network.open_namespace(ONE)
    with pytest.raises(CommandFailed, match="vxlan"):
        await network.attach(foot(ONE, "10.1.1.9"))
    kernel.refused.clear()
    await network.apply(plan())
    assert vxlan_name(NETWORK) in kernel.state.links
    await network.attach(foot(ONE, "10.1.1.9"))
    await network.close()


async def test_what_can_not_be_repaired_delays_no_other_repair(tmp_path: Path) -> None:
    kernel = FakeKernel()
    network = NetReconciler(tmp_path, kernel=kernel)
    told: list[Drift] = []
    network.on_drift(told.append)
    await network.start()
    await network.apply(plan())
    kernel.refused.add(f"vxlan {vxlan_name(NETWORK)}")
    kernel.strike(lambda state: without_link(state, vxlan_name(NETWORK)))
    await until(lambda: told, deadline=2, what="report of what can't be repaired")
    looks = kernel.looks
    await until(lambda: kernel.looks > looks + 4, deadline=5, what="attempts that come more and more rarely")
    kernel.strike(lambda state: without_link(state, bridge_name(NETWORK)))
    await until(lambda: bridge_name(NETWORK) in kernel.state.links, deadline=1, what="the bridge")
    kernel.refused.clear()
    kernel.strike(lambda state: state)
    await until(
        lambda: vxlan_name(NETWORK) in kernel.state.links, deadline=1, what="the tunnel, once it can be"
    )
    assert len([drift for drift in told if drift.action.startswith("not repaired")]) == 1
    await network.close()


async def test_plan_of_a_kernel_that_can_not_be_looked_at_is_made_once_it_can_be(tmp_path: Path) -> None:
    kernel, told = FakeKernel(), list[Drift]()
    network = NetReconciler(tmp_path, kernel=kernel)
    network.on_drift(told.append)
    await network.start()
    kernel.blind = "the network changed 20 times while it was listed"
    with pytest.raises(CommandFailed, match="changed 20 times"):
        await network.apply(msgspec.structs.replace(plan(), services={"web": service("10.1.1.9")}))
    await until(lambda: told, deadline=2, what="report of what can't be looked at")
    kernel.blind = ""
    await until(lambda: vxlan_name(NETWORK) in kernel.state.links, deadline=5, what="the network")
    await until(lambda: kernel.services.elements.get("vip4"), deadline=5, what="the services")
    assert [drift.failed for drift in told][:1] == [True]
    await network.close()


async def test_watch_outlives_a_look_that_fails_and_says_so_once(tmp_path: Path) -> None:
    kernel, told = FakeKernel(), list[Drift]()
    network = NetReconciler(tmp_path, kernel=kernel)
    network.on_drift(told.append)
    await network.start()
    await network.apply(plan())
    before = kernel.state
    kernel.blind = "cannot look at the network: No buffer space available"
    kernel.strike(lambda state: without_link(state, vxlan_name(NETWORK)))
    await until(lambda: told, deadline=2, what="report of what can't be looked at")
    with pytest.raises(CommandFailed):
        await kernel.observe(())
    kernel.blind = ""
    await until(lambda: kernel.state == before, deadline=5, what="repair")
    await until(lambda: len(told) > 1, deadline=2, what="report of the repair")
    assert [drift.failed for drift in told].count(True) == 1
    await network.close()


async def test_watch_goes_on_after_services_could_not_be_looked_at(tmp_path: Path) -> None:
    class Unlisted(FakeKernel):
        failing = False

        async def nft_changed_by_others(self) -> bool:
            if self.failing:
                raise CommandFailed("cannot ask for the generation of rules: timed out")
            return await super().nft_changed_by_others()

    kernel, told = Unlisted(), list[Drift]()
    network = NetReconciler(tmp_path, kernel=kernel)
    network.on_drift(told.append)
    await network.start()
    await network.apply(plan())
    kernel.failing = True
    kernel.strike(lambda state: without_link(state, vxlan_name(NETWORK)))
    await until(lambda: any("generation" in drift.action for drift in told), deadline=2, what="report")
    assert any(drift.object.startswith("vxlan") for drift in told), "what was repaired is told too"
    looks = kernel.looks
    await until(lambda: kernel.looks > looks + 2, deadline=5, what="further attempts")
    await network.close()


async def test_change_of_a_peer_is_issued_without_a_look_at_all_there_is(tmp_path: Path) -> None:
    kernel = FakeKernel()
    network = NetReconciler(tmp_path, kernel=kernel)
    await network.start()
    own = "198.18.0.1"
    await network.apply(large_plan(own, 20))
    looks = kernel.looks
    await network.apply(large_plan(own, 21))
    before = len(kernel.applied)
    assert kernel.looks == looks and {r.via for r in kernel.state.routes} >= {"198.19.0.1", "198.19.0.21"}
    await network.apply(large_plan(own, 20))
    assert (kernel.looks, len(kernel.applied) - before) == (looks, 6)
    kernel.refused.add("route 10.128.22.0/24")
    with pytest.raises(CommandFailed, match="route"):
        await network.apply(large_plan(own, 21))
    assert kernel.looks > looks, "what was not as thought is compared"
    kernel.refused.clear()
    await network.apply(large_plan(own, 22))
    assert {r.via for r in kernel.state.routes} >= {"198.19.0.21", "198.19.0.22"}
    await network.close()


async def test_loop_goes_on_while_what_is_wanted_is_made() -> None:
    """It takes time with the number of endpoints: 160 ms for 5,000."""
    gone_on = threading.Event()

    def wanted(firewall: HostFirewall) -> NetState:
        assert gone_on.wait(5), "the loop waits for it"
        return NetState()

    asyncio.get_running_loop().call_soon(gone_on.set)
    assert await Convergence(FakeKernel()).to(wanted) == ((), None)


async def test_loop_goes_on_while_namespaces_are_looked_for(tmp_path: Path) -> None:
    gone_on = threading.Event()

    class Slow(FakeKernel):
        def has_namespace(self, path: Path) -> bool:
            return gone_on.wait(5)

    asyncio.get_running_loop().call_soon(gone_on.set)
    known = InstanceNetwork(namespace=str(tmp_path / "one"))
    assert await Convergence(Slow()).present([known]) == [known]


async def test_steering_that_was_changed_is_set_back_and_told(tmp_path: Path) -> None:
    kernel = FakeKernel()
    network = NetReconciler(tmp_path, kernel=kernel, compare=0.01)
    told: list[Drift] = []
    network.on_drift(told.append)
    await network.start()
    await network.apply(plan())
    kernel.unsteered_links = {vxlan_name(NETWORK), "eth0"}
    await until(lambda: told, deadline=2, what="report")
    assert [drift.object for drift in told] == [f"packet steering of {vxlan_name(NETWORK)}"]
    assert kernel.unsteered_links == {"eth0"}
    await network.close()


async def test_policies_that_the_kernel_refused_are_in_force_only_once_it_takes_them(tmp_path: Path) -> None:
    class Refusing(FakeKernel):
        async def apply(self, operations: Sequence[Operation]) -> None:
            if refusing and any(isinstance(one, NftOp) for one in operations):
                raise CommandFailed("nft refused")
            await super().apply(operations)

    refusing, kernel = False, Refusing()
    network = NetReconciler(tmp_path, kernel=kernel)
    await network.start()
    await network.apply(plan())
    name = "in-0123456789ab"
    policies = HostPolicies(classes={name: compiled(name, ())})
    refusing = True
    for _ in range(2):
        with pytest.raises(CommandFailed, match="nft refused"):
            await network.police(policies)
    refusing = False
    await network.police(policies)
    assert name in kernel.state.tables["inet"].chains
    await network.close()


async def test_connections_to_a_container_that_is_gone_are_forgotten(tmp_path: Path) -> None:
    kernel = FakeKernel()
    network = NetReconciler(tmp_path, kernel=kernel)
    await network.start()
    await network.apply(plan())
    await network.open_namespace(ONE)
    await network.attach(foot(ONE, "10.1.1.9"))
    await network.publish(ports(ONE, 8080))
    asked = Connection(
        protocol=6,
        client=bytes(4),
        target=bytes(4),
        port=8080,
        member=pack("10.1.1.9"),
        member_port=80,
        local=True,
    )
    kernel.connections = [asked, msgspec.structs.replace(asked, member=pack("10.1.1.10"))]
    await network.publish(ports(ONE, 8081))
    await network.drop_namespace(ONE)
    await until(lambda: len(kernel.connections) == 1, deadline=1, what="forgetting")
    assert kernel.connections[0].member == pack("10.1.1.10")
    await network.close()


async def test_reconciler_tells_the_proxy_its_ports_and_nft_the_others(tmp_path: Path) -> None:
    kernel, proxy = FakeKernel(), FakeProxy()
    network = NetReconciler(tmp_path, kernel=kernel, proxy=proxy)
    await network.start()
    await network.apply(plan())
    for instance in (ONE, TWO):
        await network.open_namespace(instance)
    await network.publish(proxied(ports(ONE, 443)))
    kernel.taken_ports = {("tcp", 443)}
    assert [p.port for p in proxy.state.ports] == [443]
    assert not kernel.state.tables["inet"].sets["port4"].elements
    await network.publish(proxied(ports(ONE, 443), host_ip="10.0.0.1"))
    assert [p.host_ip for p in proxy.state.ports] == ["10.0.0.1"], "our own proxy holds the port: no stranger"
    with pytest.raises(InUse, match="443"):
        await network.publish(proxied(ports(TWO, 443, host_ip="10.0.0.2")))
    proxy.foreign = {444}
    with pytest.raises(InUse, match="444/tcp: cannot listen"):
        await network.publish(proxied(ports(TWO, 444)))
    assert [p.port for p in proxy.state.ports] == [443], "nothing is changed by a refusal"
    await network.close()
    again, later = NetReconciler(tmp_path, kernel=kernel, proxy=(fresh := FakeProxy())), proxy.state
    await again.start()
    await again.apply(plan())
    assert fresh.state == later, "the next agent tells the same"
    early = NetReconciler(tmp_path, kernel=kernel, proxy=FakeProxy())
    await early.start()
    await early.drop_namespace(TWO)  # also while there is no plan yet
    await early.close()
    await again.drop_namespace(ONE)
    assert fresh.state.ports == ()
    await again.close()


async def test_services_of_the_plan_replace_those_served(tmp_path: Path) -> None:
    kernel = FakeKernel()
    network = NetReconciler(tmp_path, kernel=kernel)
    await network.start()
    await network.apply(plan())
    assert kernel.services.chains == {}
    await network.serve({"web": service("10.1.1.9", "10.1.1.10"), "db": service(vip="10.127.0.6")})
    await network.serve({"db": service("10.1.1.9", vip="10.127.0.6")})
    wanted = {"db": service("10.1.1.10", vip="10.127.0.6"), "web": service("10.1.1.10")}
    await network.apply(msgspec.structs.replace(plan(), services=wanted))
    elements = Ledger(wanted, ("10.1.1.0/24",)).elements
    assert kernel.services.elements["pick4"] == elements["pick4"]
    assert kernel.services.elements["vip4"] == elements["vip4"]
    before = network.mutations
    await network.apply(msgspec.structs.replace(plan(), services=wanted))
    assert network.mutations == before
    await network.close()


async def test_services_are_served_though_a_link_is_refused(tmp_path: Path) -> None:
    """As after an agent's start on a host where a stranger has a tunnel's number."""
    kernel = FakeKernel()
    first = NetReconciler(tmp_path, kernel=kernel)
    await first.start()
    wanted = {"db": service("10.1.1.10", vip="10.127.0.6"), "web": service("10.1.1.10")}
    await first.apply(msgspec.structs.replace(plan(), services=wanted))
    await first.close()
    kernel.state = without_link(kernel.state, vxlan_name(NETWORK))
    kernel.refused.add(f"vxlan {vxlan_name(NETWORK)}")
    network = NetReconciler(tmp_path, kernel=kernel)
    await network.start()
    with pytest.raises(CommandFailed, match="vxlan"):
        await network.apply(msgspec.structs.replace(plan(), services=wanted))
    changed = service("10.1.1.9")
    await network.serve({"web": changed})
    elements = Ledger({**wanted, "web": changed}, ("10.1.1.0/24",)).elements
    assert kernel.services.elements["vip4"] == elements["vip4"], "none is forgotten"
    assert kernel.services.elements["pick4"].items() >= elements["pick4"].items()
    await network.close()


async def test_datagrams_leave_a_member_that_left(tmp_path: Path) -> None:
    kernel = FakeKernel()
    network = NetReconciler(tmp_path, kernel=kernel)
    await network.start()
    await network.apply(plan())
    await network.serve({"web": service("10.1.1.9", "10.1.1.10")})
    await network.serve({"web": service("10.1.1.10")})
    await until(lambda: kernel.services.forgotten, deadline=1, what="forgetting")
    assert [flow.member for flow in kernel.services.forgotten] == [pack("10.1.1.9")]
    assert pack("10.1.1.9") in kernel.services.elements["served4"]
    await network.close()


async def test_datagrams_that_could_not_be_forgotten_are_later(tmp_path: Path) -> None:
    class Refusing(FakeKernel):
        tries = 0

        async def forget(self, flows: Sequence[Flow]) -> None:
            self.tries += 1
            if self.tries == 1:
                raise CommandFailed("cannot forget datagrams: timed out")
            await super().forget(flows)

    kernel = Refusing()
    network = NetReconciler(tmp_path, kernel=kernel)
    await network.start()
    await network.apply(plan())
    await network.serve({"web": service("10.1.1.9", "10.1.1.10", "10.1.1.11")})
    await network.serve({"web": service("10.1.1.10", "10.1.1.11")})
    await until(lambda: kernel.tries, deadline=2, what="the first try")
    await network.serve({"web": service("10.1.1.11")})
    await until(lambda: kernel.services.forgotten, deadline=5, what="forgetting")
    assert {flow.member for flow in kernel.services.forgotten} == {pack("10.1.1.9"), pack("10.1.1.10")}
    await network.close()


async def test_table_of_services_goes_once_nobody_is_connected(tmp_path: Path) -> None:
    kernel, turn = FakeKernel(), asyncio.Lock()
    serving = Serving(kernel)
    await serving.apply({"web": service("10.1.1.9")}, Frame(ranges=("10.127.0.0/24",)))
    kernel.services.connected = frozenset({pack("10.1.1.9")})
    await serving.change({"web": None})
    await serving.release(turn)
    assert kernel.services.elements["served4"] and not kernel.services.elements["vip4"]
    kernel.services.connected = frozenset()
    await serving.release(turn)
    assert kernel.services.chains == {}
    await serving.change({"web": service("10.1.1.9")})
    assert kernel.services.elements["vip4"]


async def test_reconciler_follows_firewalld_and_calls_it_no_repair(tmp_path: Path) -> None:
    kernel, told = FakeKernel(), list[Drift]()
    network = NetReconciler(tmp_path, kernel=kernel)
    network.on_drift(told.append)
    await network.start()
    await network.apply(plan())
    await network.serve({"web": service("10.1.1.9")})

    def asked() -> bool:
        return f"{GATE}0" in kernel.state.tables["inet"].chains

    refusing = HostFirewall(chains=((Step(match="", verdict="refuse"),),))
    kernel.firewall = refusing
    kernel.strike(lambda state: state)
    await until(asked, deadline=2, what="firewalld's start")
    before = network.mutations
    await network.apply(msgspec.structs.replace(plan(), services={"web": service("10.1.1.9")}))
    assert network.mutations == before
    kernel.firewall = NO_FIREWALL
    kernel.strike(lambda state: state)
    await until(lambda: not asked(), deadline=2, what="firewalld's end")
    assert told == []
    await network.close()


async def test_reconciler_repairs_services_a_stranger_changed(tmp_path: Path) -> None:
    kernel, told = FakeKernel(), list[Drift]()
    network = NetReconciler(tmp_path, kernel=kernel)
    network.on_drift(told.append)
    await network.start()
    await network.apply(plan())
    await network.serve({"web": service("10.1.1.9", "10.1.1.10")})
    before = {name: dict(found) for name, found in kernel.services.elements.items()}
    vip = pack("10.127.0.5")
    kernel.services.change(ElementChange(gone={"vip4": (vip,)}))
    kernel.services.chains["balance4"] = ()
    kernel.services.others = True
    kernel.strike(lambda state: state)
    await until(lambda: kernel.services.elements == before, deadline=2, what="repair")
    await until(lambda: told, deadline=2, what="report")
    assert told[0].object == "nft table inet flota_services"
    assert kernel.services.chains["balance4"]
    kernel.services.change(ElementChange(gone={"vip4": (vip,)}))
    await network.serve({"web": None})
    assert kernel.services.elements["vip4"] == {}
    await network.close()


async def test_reconciler_repairs_and_tells_what_a_stranger_removed(tmp_path: Path) -> None:
    kernel, told = FakeKernel(), list[Drift]()
    network = NetReconciler(tmp_path, kernel=kernel)
    network.on_drift(told.append)
    await network.start()
    await network.apply(plan())
    await network.open_namespace(ONE)
    await network.attach(foot(ONE, "10.1.1.9"))
    before = kernel.state

    def strike(state: NetState) -> NetState:
        return msgspec.structs.replace(state, routes=frozenset(), tables={})

    kernel.strike(strike)
    await until(lambda: kernel.state == before, deadline=2, what="repair")
    await until(lambda: len(told) >= 4, deadline=2, what="reports")
    assert {d.object for d in told} >= {"route 10.1.1.0/24", "nft table inet flota"}
    await network.close()


@pytest.mark.parametrize("restarted", [False, True])
async def test_container_whose_namespace_a_stranger_let_go_of_keeps_its_network(
    tmp_path: Path, restarted: bool
) -> None:
    kernel, told = FakeKernel(), list[Drift]()
    network = NetReconciler(tmp_path, kernel=kernel)
    await network.start()
    await network.apply(plan())
    path = Path(await network.open_namespace(ONE))
    await network.attach(foot(ONE, "10.1.1.9"))
    if restarted:
        await network.close()
        network = NetReconciler(tmp_path, kernel=kernel)
        await network.start()
        await network.apply(plan())
    network.on_drift(told.append)
    before = kernel.state
    kernel.spaces.discard(path)
    kernel.strike(lambda state: state)
    await until(lambda: told, deadline=2, what="report")
    assert path in kernel.spaces and kernel.state == before
    assert [drift.object for drift in told] == [f"network namespace of {ONE[:12]}"]
    await network.close()


async def test_reconciler_started_again_changes_nothing(tmp_path: Path) -> None:
    kernel = FakeKernel()
    first = NetReconciler(tmp_path, kernel=kernel)
    await first.start()
    await first.apply(plan())
    await first.open_namespace(ONE)
    await first.attach(foot(ONE, "10.1.1.9"))
    await first.publish(ports(ONE, 8080))
    await first.close()
    before, count = kernel.state, len(kernel.applied)
    second = NetReconciler(tmp_path, kernel=kernel)
    await second.start()
    await second.apply(plan())
    await second.attach(foot(ONE, "10.1.1.9"))
    assert (kernel.state, len(kernel.applied), second.mutations) == (before, count, 0)
    await second.drop_namespace(ONE)
    await second.apply(msgspec.structs.replace(plan(), networks={}))
    assert not kernel.state.links and not kernel.state.routes
    await second.close()


async def test_attach_changes_only_its_own_link_and_elements(tmp_path: Path) -> None:
    kernel = FakeKernel()
    network = NetReconciler(tmp_path, kernel=kernel)
    await network.start()
    await network.apply(plan())
    await network.open_namespace(ONE)
    del kernel.applied[:]
    await network.attach(foot(ONE, "10.1.1.9"))
    assert [str(op).split(" ")[0:2] for op in kernel.applied] == [["change", "elements"], ["add", "veth"]]
    assert kernel.state.links[bridge_name(NETWORK)].up
    await network.close()


async def test_way_out_is_moved_without_a_new_link_and_a_filter_change(tmp_path: Path) -> None:
    kernel = FakeKernel()
    network = NetReconciler(tmp_path, kernel=kernel)
    await network.start()
    await network.apply(plan())
    await network.open_namespace(ONE)
    await network.attach(foot(ONE, "10.1.1.9"))
    del kernel.applied[:]
    await network.attach(msgspec.structs.replace(foot(ONE, "10.1.1.9"), default_route=False))
    assert [str(op).split(" ")[:2] for op in kernel.applied] == [["change", "routes"]]
    [foot_] = [link.foot for link in kernel.state.links.values() if link.foot]
    assert foot_.defaults == () and foot_.gateways == ("10.1.0.1",)
    await network.close()
