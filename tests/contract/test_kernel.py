"""What every Kernel promises: the fake and, in a namespace of its own, the real one."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from model.errors import AlreadyExists, CommandFailed
from model.ids import HostId, InstanceId, NetworkId
from model.spec import NetworkSpec, Publish, Subnet
from model.status import BoundPort
from model.view import NetworkPeer, NetworkView, Peer
from net.diff import NftOp, Op, diff
from net.endpoint import InstanceNetwork
from net.host import INGRESS, EndpointRequest, NetworkPlan, PublishRequest
from net.hostfirewall import HostFirewall
from net.kernel.base import Kernel
from net.kernel.fake import FakeKernel
from net.kernel.linux import LinuxKernel
from net.loadbalance import (
    VERDICTS,
    ElementChange,
    Ledger,
    Method,
    ServiceMember,
    VirtualService,
    delta,
    pack,
)
from net.plan import desired
from net.servicechains import Frame, all_chains, comments, completing_script, removing_script
from net.state import Address, Link, NetState, Route, Sysctl
from tests.support.ownnetns import own_network_namespace

ME, PEER = HostId("1" * 64), HostId("2" * 64)
ROUTED, BRIDGED, LOCAL = NetworkId("a" * 64), NetworkId("b" * 64), NetworkId("c" * 64)


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.kernel)])
async def kernel(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kernel]:
    """Namespaces that a failed test left in its folder go with it."""
    if request.param == "fake":
        yield FakeKernel()
        return
    with own_network_namespace():
        kernel = LinuxKernel()
        await kernel.start(lambda: None)
        yield kernel
        for path in tmp_path.iterdir():
            if kernel.has_namespace(path):
                await kernel.drop_namespace(path)
        await kernel.close()


def plan() -> NetworkPlan:
    def view(ident: NetworkId, number: int, driver: str = "overlay", **options: str) -> NetworkView:
        subnets = (Subnet(cidr=f"10.{number}.0.0/16"), Subnet(cidr=f"fd00:{number}::/64"))
        spec = NetworkSpec(name=f"n{number}", driver=driver, subnets=subnets, options=options)
        peers = (NetworkPeer(host=PEER, blocks=(f"10.{number}.2.0/24", f"fd00:{number}::200/120")),)
        blocks = (f"10.{number}.1.0/24", f"fd00:{number}::100/120")
        return NetworkView(id=ident, spec=spec, vni=4096 + number, blocks=blocks, peers=peers)

    ingress = view(NetworkId(INGRESS), 4, icc="off")
    entry = msgspec.structs.replace(ingress.peers[0], number=5)
    views = (
        view(ROUTED, 1),
        view(BRIDGED, 2, mode="bridged"),
        view(LOCAL, 3, "bridge"),
        msgspec.structs.replace(ingress, peers=(entry,)),
    )
    return NetworkPlan(
        host=ME,
        address="198.18.7.11",
        mtu=1500,
        vxlan_port=4789,
        networks={v.id: v for v in views},
        peers={PEER: Peer(host=PEER, name="h2", address="198.18.7.12")},
    )


async def instance(kernel: Kernel, folder: Path) -> InstanceNetwork:
    path = folder / ("e" * 64)
    await kernel.make_namespace(path)
    ident = InstanceId("e" * 64)
    ports = (
        BoundPort(target=80, published=8080, protocol="tcp"),
        BoundPort(target=53, published=53, protocol="udp", host_ip="127.0.0.1"),
    )
    return InstanceNetwork(
        namespace=str(path),
        endpoints=(
            EndpointRequest(
                instance=ident,
                network=ROUTED,
                ifname="eth0",
                ipv4="10.1.1.9",
                ipv6="fd00:1::109",
                default_route=True,
            ),
            EndpointRequest(
                instance=ident,
                network=LOCAL,
                ifname="eth1",
                ipv4="10.3.1.9",
                bandwidth_in=2_500_000,
                bandwidth_out=125_000,
            ),
        ),
        published=PublishRequest(instance=ident, ipv4="10.1.1.9", ipv6="fd00:1::109", ports=ports),
    )


async def test_kernel_after_a_diff_is_as_wanted_and_after_its_reverse_empty(
    kernel: Kernel, tmp_path: Path
) -> None:
    found = await instance(kernel, tmp_path)
    want = desired(plan(), (found,))
    await kernel.apply(diff(want, await kernel.observe(want.sysctls)))
    seen = await kernel.observe(want.sysctls)
    assert diff(want, seen) == ()
    assert (seen.routes, seen.fdb, seen.neighbours) == (want.routes, want.fdb, want.neighbours)
    assert seen.rules == want.rules and len(seen.rules) == 2
    own = {address for address in seen.addresses - want.addresses if address.cidr.startswith("fe80:")}
    assert seen.addresses - own == want.addresses, "beside what the kernel gives links by itself"
    assert dict(seen.sysctls) == dict(want.sysctls)
    assert (seen.limits, seen.detours) == (want.limits, want.detours)
    assert sorted(limit.rate for limit in seen.limits) == [125_000, 2_500_000]
    await kernel.apply(diff(NetState(), seen))
    rest = await kernel.observe(())
    assert msgspec.structs.replace(rest, sysctls={}) == NetState()
    await kernel.drop_namespace(Path(found.namespace))


async def test_peer_that_leaves_takes_its_entries_along_while_links_stay(kernel: Kernel) -> None:
    want, whole = desired(plan(), ()), plan()
    await kernel.apply(diff(want, await kernel.observe(want.sysctls)))
    alone = {ident: msgspec.structs.replace(view, peers=()) for ident, view in whole.networks.items()}
    rest = desired(msgspec.structs.replace(whole, networks=alone, peers={}), ())
    await kernel.apply(diff(rest, await kernel.observe(rest.sysctls)))
    seen = await kernel.observe(rest.sysctls)
    assert (seen.routes, seen.fdb, seen.neighbours) == (rest.routes, rest.fdb, rest.neighbours)
    assert diff(rest, seen) == ()


async def test_half_of_it_gone_is_completed_by_a_diff(kernel: Kernel, tmp_path: Path) -> None:
    found = await instance(kernel, tmp_path)
    want = desired(plan(), (found,))
    await kernel.apply(diff(want, await kernel.observe(want.sysctls)))
    seen = await kernel.observe(want.sysctls)
    bridges = [Op(verb="remove", item=link) for link in seen.links.values() if link.kind == "bridge"]
    await kernel.apply(bridges)
    await kernel.apply(diff(want, await kernel.observe(want.sysctls)))
    assert diff(want, await kernel.observe(want.sysctls)) == ()
    await kernel.drop_namespace(Path(found.namespace))


async def test_route_on_a_missing_link_is_refused_with_its_name(kernel: Kernel) -> None:
    with pytest.raises(CommandFailed, match=r"route 10\.7\.0\.0/16"):
        await kernel.apply([Op(verb="add", item=Route(destination="10.7.0.0/16", link="flbnone"))])
    with pytest.raises(CommandFailed, match="flbnone"):
        await kernel.apply([Op(verb="add", item=Address(link="flbnone", cidr="10.7.0.1/16"))])


async def test_route_made_twice_is_refused(kernel: Kernel) -> None:
    route = Op(verb="add", item=Route(destination="10.7.0.0/16"))
    await kernel.apply([route])
    with pytest.raises(CommandFailed, match=r"10\.7\.0\.0/16"):
        await kernel.apply([route])


async def test_members_that_take_no_shortcut_are_in_its_table_while_it_stands(kernel: Kernel) -> None:
    one, two, other = map(pack, ("10.1.2.9", "fd00:1::209", "10.1.2.77"))
    await kernel.track(come=frozenset({one}))
    assert "netdev" not in (await kernel.observe(())).tables
    alone = HostFirewall(alone=True)
    want = desired(plan(), (), alone)
    await kernel.apply(diff(want, await kernel.observe(want.sysctls)))
    await kernel.track(come=frozenset({one, two}))
    await kernel.track(come=frozenset({one}))
    more = desired(plan(), (), alone, (one, two))
    assert diff(more, await kernel.observe(more.sysctls)) == ()
    await kernel.track(gone=frozenset({one}))
    await kernel.track(gone=frozenset({other}))
    less = desired(plan(), (), alone, (two,))
    assert diff(less, await kernel.observe(less.sysctls)) == ()
    await kernel.apply(diff(NetState(), await kernel.observe(())))


async def test_services_are_seen_as_they_were_programmed(kernel: Kernel) -> None:
    assert (await kernel.observe_services()).chains == {}
    both = tuple(ServiceMember(ipv4=f"10.1.1.{n}", ipv6=f"fd00:1::10{n}") for n in (1, 2))
    methods: tuple[Method, ...] = ("round-robin", "random", "source-hash", "sticky")
    port = Publish(target=80, published=8080, mode="ingress", allow=("10.0.0.0/8", "fd00::/16"))
    ledger = Ledger(
        {
            "ports": VirtualService(members=both, method="sticky", ports=(port,)),
            **{
                m: VirtualService(ipv4=f"10.127.0.{i}", ipv6=f"fd7f::{i}", members=both, method=m)
                for i, m in enumerate(methods)
            },
        },
        ("10.1.1.0/24", "fd00:1::100/120"),
    )
    picks = {data.decode() for name in VERDICTS for data in ledger.elements[name].values()}
    frame = Frame(ranges=("10.127.0.0/16", "fd7f::/64"), onlink=("flbx",), ports=True)
    want = all_chains(frame, picks)
    await kernel.apply([NftOp(family="inet", script=completing_script(want, {}), whole=False)])
    await kernel.change_services(delta({}, ledger.elements))
    seen = await kernel.observe_services()
    assert (seen.chains, seen.elements) == (comments(want), ledger.elements)
    assert not await kernel.nft_changed_by_others()
    missing = ElementChange(gone={"vip4": (pack("10.127.0.99"),)}, new={"served4": {bytes(4): b""}})
    with pytest.raises(CommandFailed, match="services"):
        await kernel.change_services(missing)
    assert (await kernel.observe_services()).elements == ledger.elements
    change = ledger.change({"sticky": None, "ports": None})
    await kernel.change_services(change.elements)
    await kernel.forget(change.left)
    assert await kernel.connected(frozenset(ledger.lingering)) == frozenset()
    assert (await kernel.observe_services()).elements == ledger.elements
    await kernel.apply([NftOp(family="inet", script=removing_script(), whole=False)])
    assert (await kernel.observe_services()).chains == {}


async def test_removing_what_is_gone_is_success(kernel: Kernel) -> None:
    link = Link(name="flbnone", kind="bridge", alias="flota:x", mtu=1500)
    await kernel.apply(
        [
            Op(verb="remove", item=Address(link="flbnone", cidr="10.7.0.1/16")),
            Op(verb="remove", item=Route(destination="10.7.0.0/16")),
            Op(verb="remove", item=link),
        ]
    )


async def test_unknown_switches_are_left_out_and_refused(kernel: Kernel) -> None:
    seen = await kernel.observe(("net/ipv4/ip_forward", "net/ipv4/conf/none/rp_filter"))
    assert list(seen.sysctls) == ["net/ipv4/ip_forward"]
    with pytest.raises(CommandFailed, match="conf/none"):
        await kernel.apply([Op(verb="change", item=Sysctl(path="net/ipv4/conf/none/rp_filter", value="1"))])


async def test_namespace_is_made_once_and_dropped_twice(kernel: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "space"
    await kernel.make_namespace(path)
    assert kernel.has_namespace(path)
    with pytest.raises(AlreadyExists):
        await kernel.make_namespace(path)
    await kernel.drop_namespace(path)
    await kernel.drop_namespace(path)
    assert not kernel.has_namespace(path) and not path.exists()


def sleeping_in(path: Path) -> subprocess.Popen[str]:
    words = ["nsenter", f"--net={path}", "sh", "-c", "echo in; exec sleep 60"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


async def test_namespace_that_a_stranger_let_go_of_is_held_again(kernel: Kernel, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("made", "kept", "dropped")]
    for path in paths:
        await kernel.make_namespace(path)
    living = [] if isinstance(kernel, FakeKernel) else list(map(sleeping_in, paths))
    inodes = [path.stat().st_ino for path in paths]
    kernel.keep_namespaces([*paths, tmp_path / "none"])
    await kernel.drop_namespace(paths[2])
    assert await kernel.held_again() == []
    for path in paths[:2]:
        if isinstance(kernel, FakeKernel):
            kernel.spaces.discard(path)
        else:
            await asyncio.to_thread(subprocess.run, ["umount", path], check=True)
        assert not kernel.has_namespace(path)
    assert sorted(await kernel.held_again()) == sorted(paths[:2])
    assert all(map(kernel.has_namespace, paths[:2])) and not kernel.has_namespace(paths[2])
    if living:
        assert [path.stat().st_ino for path in paths[:2]] == inodes[:2]
    for process in living:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["fake", pytest.param("linux", marks=pytest.mark.kernel)])
async def test_bell_rings_when_something_changed(kind: str) -> None:
    rung = asyncio.Event()
    with own_network_namespace() if kind == "linux" else contextlib.nullcontext():
        kernel: Kernel = LinuxKernel() if kind == "linux" else FakeKernel()
        await kernel.start(rung.set)
        link = Link(name="flbtest", kind="bridge", alias="flota:test", mtu=1500)
        await kernel.apply([Op(verb="add", item=link)])
        async with asyncio.timeout(5):
            await rung.wait()
        await kernel.close()
