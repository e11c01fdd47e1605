"""Shortcuts between hosts, kept on a kernel in memory: who takes none, who is reached by one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from model.errors import CommandFailed
from net.diff import NftOp, Operation
from net.hostfirewall import HostFirewall
from net.kernel.base import SeenServices
from net.kernel.fake import FakeKernel
from net.loadbalance import pack
from net.naming import vxlan_name
from net.reconciler import NetReconciler
from net.servicechains import Frame
from net.serving import Serving
from tests.support.netplans import NETWORK, ONE, foot, plan, service
from tests.support.waiting import until

HOMES = f"homes4-{vxlan_name(NETWORK)}"


async def test_members_take_no_shortcut_from_before_they_are_tracked_until_they_no_longer_are() -> None:
    kernel, turn = FakeKernel(), asyncio.Lock()
    serving, one, two = Serving(kernel), pack("10.1.1.9"), pack("10.1.1.10")
    await serving.apply({"web": service("10.1.1.9", "10.1.1.10")}, Frame(ranges=("10.127.0.0/24",)))
    kernel.services.connected = frozenset({one})
    await serving.change({"web": service("10.1.1.10")})
    await serving.release(turn)
    assert await serving.tracked() == {one, two}, "it lingers"
    kernel.services.connected = frozenset()
    await serving.release(turn)
    assert await serving.tracked() == {two}
    await serving.change({"web": None})
    await serving.release(turn)
    assert await serving.tracked() == frozenset()
    told = [(come, gone, then) for come, gone, then in kernel.tracked if come or gone]
    assert told == [
        (frozenset({one, two}), frozenset(), frozenset()),
        (frozenset(), frozenset({one}), frozenset({two})),
        (frozenset(), frozenset({two}), frozenset()),
    ]


async def test_shortcuts_know_members_of_before_when_the_agent_comes_back(tmp_path: Path) -> None:
    kernel = FakeKernel()
    kernel.firewall = HostFirewall(alone=True)
    first = NetReconciler(tmp_path, kernel=kernel)
    await first.start()
    await first.apply(plan())
    await first.serve({"web": service("10.1.1.9", "10.1.1.10")})
    await first.serve({"web": service("10.1.1.10")})

    def kept() -> set[str]:
        return set(kernel.state.tables["netdev"].sets["served4"].elements)

    assert kept() == {"10.1.1.9", "10.1.1.10"}
    await first.close()
    assert "netdev" not in kernel.state.tables, "nobody looks any more who else filters what passes"
    again = NetReconciler(tmp_path, kernel=kernel)
    await again.start()
    await again.apply(msgspec.structs.replace(plan(), services={"web": service("10.1.1.10")}))
    assert kept() == {"10.1.1.9", "10.1.1.10"}, "who is connected to one that left goes on"
    assert again.mutations == 1, "the shortcuts alone"
    kernel.strike(lambda state: msgspec.structs.replace(state, tables={}))
    await until(lambda: "netdev" in kernel.state.tables, deadline=2, what="the shortcuts")
    assert kept() == {"10.1.1.9", "10.1.1.10"}
    await again.close()


async def test_services_that_can_not_be_looked_at_leave_no_shortcuts(tmp_path: Path) -> None:
    class Unlisted(FakeKernel):
        failing = True

        async def observe_services(self) -> SeenServices:
            if self.failing:
                raise CommandFailed("cannot list the services of this host: timed out")
            return await super().observe_services()

    kernel = Unlisted()
    kernel.firewall = HostFirewall(alone=True)
    network = NetReconciler(tmp_path, kernel=kernel)
    await network.start()
    with pytest.raises(CommandFailed, match="timed out"):
        await network.apply(plan())
    assert "netdev" not in kernel.state.tables and "inet" in kernel.state.tables
    kernel.failing = False
    kernel.strike(lambda state: state)
    await until(lambda: "netdev" in kernel.state.tables, deadline=5, what="the shortcuts")
    await network.close()


async def test_containers_are_reached_by_shortcuts_while_they_are_there(tmp_path: Path) -> None:
    kernel = FakeKernel()
    kernel.firewall = HostFirewall(alone=True)
    network = NetReconciler(tmp_path, kernel=kernel)

    def reached() -> set[str]:
        return set(kernel.state.tables["netdev"].sets[HOMES].elements)

    await network.start()
    await network.apply(plan())
    await network.open_namespace(ONE)
    await network.attach(foot(ONE, "10.1.1.9"))
    assert reached() == {"10.1.1.9"}
    await network.attach(foot(ONE, "10.1.1.10"))
    assert reached() == {"10.1.1.10"}
    await network.detach(ONE, NETWORK)
    assert reached() == set()
    await network.attach(foot(ONE, "10.1.1.11"))
    before = network.mutations
    await network.examine()
    assert reached() == {"10.1.1.11"} and network.mutations == before
    await network.drop_namespace(ONE)
    assert reached() == set()
    await network.close()


async def test_container_starts_though_its_shortcut_can_not_be_and_has_it_soon(tmp_path: Path) -> None:
    class Without(FakeKernel):
        failing = True

        async def apply(self, operations: Sequence[Operation]) -> None:
            if self.failing and any(isinstance(op, NftOp) and op.family == "netdev" for op in operations):
                raise CommandFailed("nft refused a change of table flota: No such file or directory")
            await super().apply(operations)

    kernel = Without()
    kernel.firewall = HostFirewall(alone=True)
    network = NetReconciler(tmp_path, kernel=kernel)
    await network.start()
    with pytest.raises(CommandFailed, match="No such file"):
        await network.apply(plan())
    await network.open_namespace(ONE)
    await network.attach(foot(ONE, "10.1.1.9"))
    assert "netdev" not in kernel.state.tables
    kernel.failing = False
    kernel.strike(lambda state: state)
    await until(lambda: "netdev" in kernel.state.tables, deadline=5, what="the shortcuts")
    assert set(kernel.state.tables["netdev"].sets[HOMES].elements) == {"10.1.1.9"}
    await network.close()
