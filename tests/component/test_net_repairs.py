"""The reconciler at what strangers changed, and at its own return."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from model.errors import CommandFailed
from net.host import Drift
from net.hostfirewall import GATE, NO_FIREWALL, HostFirewall, Step
from net.kernel.fake import FakeKernel, without_link
from net.loadbalance import ElementChange, Flow, Ledger, pack
from net.naming import bridge_name, vxlan_name
from net.reconciler import NetReconciler
from net.servicechains import Frame
from net.serving import Serving
from net.state import NetState
from tests.support.netplans import NETWORK, ONE, foot, plan, ports, service
from tests.support.waiting import until


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
