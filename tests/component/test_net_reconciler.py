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
from net.hostfirewall import HostFirewall
from net.kernel.fake import FakeKernel, without_link
from net.loadbalance import pack
from net.naming import bridge_name, vxlan_name
from net.policy import HostPolicies, compiled
from net.proxying import FakeProxy
from net.reconciler import NetReconciler
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
