"""Links on the site's networks, made in containers: the fake kernel and the real one agree."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from model.errors import CommandFailed
from model.ids import InstanceId, NetworkId
from model.spec import NetworkSpec, Subnet
from model.status import Nic
from model.view import NetworkView
from net.diff import Op, diff
from net.endpoint import InstanceNetwork
from net.host import EndpointRequest, NetworkPlan
from net.kernel.base import Kernel
from net.kernel.fake import FakeKernel
from net.kernel.linux import LinuxKernel
from net.kernel.underlay import link_kinds, nics
from net.plan import desired
from net.state import UPPER, Link, NetState
from tests.contract.test_kernel import kernel, plan
from tests.support.ownnetns import own_network_namespace

__all__ = ["kernel"]


SITE = NetworkId("d" * 64)


def site_plan(parent: str = "nic0", driver: str = "macvlan", **options: str) -> NetworkPlan:
    spec = NetworkSpec(
        name="lan",
        driver=driver,
        subnets=(Subnet(cidr="192.0.2.0/24"), Subnet(cidr="2001:db8::/64")),
        options={"parent": parent, **options},
    )
    blocks = ("192.0.2.128/28", "2001:db8::100/120")
    view = NetworkView(id=SITE, spec=spec, vni=0, blocks=blocks, parent=parent)
    nics = (Nic(name="nic0"),)
    return msgspec.structs.replace(plan(), networks={SITE: view}, peers={}, nics=nics)


async def site_instance(kernel: Kernel, folder: Path) -> InstanceNetwork:
    path = folder / ("f" * 64)
    await kernel.make_namespace(path)
    foot = EndpointRequest(
        instance=InstanceId("f" * 64), network=SITE, ifname="eth0", ipv4="192.0.2.130", ipv6="2001:db8::109"
    )
    return InstanceNetwork(namespace=str(path), endpoints=(foot,))


def inner(want: NetState) -> tuple[Link, ...]:
    return tuple(link for link in want.links.values() if link.foot is not None and link.kind in UPPER)


@pytest.fixture
def nic(kernel: Kernel) -> None:
    """A link of the host's own, to stand on."""
    if isinstance(kernel, FakeKernel):
        kernel.nics = {"nic0"}
        return
    for words in ("add nic0 type veth peer name nic1", "set nic0 up", "set nic1 up"):
        subprocess.run(["ip", "link", *words.split()], check=True)


async def test_link_in_a_container_is_made_seen_and_removed(
    kernel: Kernel, nic: None, tmp_path: Path
) -> None:
    found = await site_instance(kernel, tmp_path)
    want = desired(site_plan(), (found,))
    await kernel.apply(diff(want, await kernel.observe(want.sysctls, inner(want))))
    seen = await kernel.observe(want.sysctls, inner(want))
    assert diff(want, seen) == () and len(inner(want)) == 1
    assert await kernel.ask(inner(want)[0].foot) == {}  # type: ignore[arg-type]
    other = desired(site_plan(mode="vepa"), (found,))
    await kernel.apply(diff(other, seen))
    seen = await kernel.observe(want.sysctls, inner(other))
    assert diff(other, seen) == ()
    (link,) = inner(other)
    await kernel.apply([Op(verb="remove", item=link), Op(verb="remove", item=link)])
    missing = diff(other, await kernel.observe(want.sysctls, inner(other)))
    assert [(op.verb, op.item) for op in missing if isinstance(op, Op)] == [("add", link)]
    await kernel.apply(missing)
    assert diff(other, await kernel.observe(want.sysctls, inner(other))) == ()
    await kernel.drop_namespace(Path(found.namespace))
    await kernel.apply(diff(NetState(), await kernel.observe(())))
    assert msgspec.structs.replace(await kernel.observe(()), sysctls={}) == NetState()


async def test_link_in_a_container_first_stands_without_addresses(
    kernel: Kernel, nic: None, tmp_path: Path
) -> None:
    found = await site_instance(kernel, tmp_path)
    (link,) = inner(desired(site_plan(), (found,)))
    for bare in (True, True, False):
        await kernel.apply([Op(verb="add", item=msgspec.structs.replace(link, bare=bare))])
    assert (await kernel.observe((), (link,))).links[link.name].below == "nic0"
    await kernel.drop_namespace(Path(found.namespace))


def ip_link(*words: str, namespace: str = "") -> str:
    enter = ["nsenter", f"--net={namespace}"] if namespace else []
    return subprocess.run([*enter, "ip", "link", *words], check=True, capture_output=True, text=True).stdout


@pytest.mark.kernel
async def test_link_that_was_made_but_not_named_is_taken_and_a_strangers_is_not(tmp_path: Path) -> None:
    """We died between the two. The host has an eth0, too, as hosts do."""
    with own_network_namespace():
        for words in ("add nic0 type veth peer name nic1", "set nic0 up", "add eth0 type bridge"):
            ip_link(*words.split())
        kernel = LinuxKernel()
        await kernel.start(lambda: None)
        found = await site_instance(kernel, tmp_path)
        (link,) = inner(desired(site_plan(), (found,)))
        await kernel.apply([Op(verb="add", item=link)])
        for word in (("down",), ("name", link.name)):
            ip_link("set", "eth0", *word, namespace=found.namespace)
        ip_link("set", link.name, "alias", "", namespace=found.namespace)
        await kernel.apply([Op(verb="add", item=link)])
        listed = ip_link("show", namespace=found.namespace)
        assert "eth0@" in listed and link.name not in listed
        assert (await kernel.observe((), (link,))).links[link.name].below == "nic0"
        for words in ("del eth0", "add eth0 type bridge", "set eth0 alias somebodys"):
            ip_link(*words.split(), namespace=found.namespace)
        with pytest.raises(CommandFailed, match="not ours"):
            await kernel.apply([Op(verb="add", item=link)])
        await kernel.drop_namespace(Path(found.namespace))
        await kernel.close()


async def test_link_on_one_that_is_not_there_is_refused_with_its_name(
    kernel: Kernel, nic: None, tmp_path: Path
) -> None:
    found = await site_instance(kernel, tmp_path)
    (link,) = inner(desired(site_plan(), (found,)))
    gone = msgspec.structs.replace(link, below="nic9")
    with pytest.raises(CommandFailed, match="no link nic9"):
        await kernel.apply([Op(verb="add", item=gone)])
    await kernel.drop_namespace(Path(found.namespace))


async def test_script_runs_in_a_container_as_a_whole_or_not_at_all(kernel: Kernel, tmp_path: Path) -> None:
    found = await site_instance(kernel, tmp_path)
    await kernel.fence(found.namespace, "add table inet flota\n")
    with pytest.raises(CommandFailed):
        await kernel.fence(str(tmp_path / "none"), "add table inet flota\n")
    assert (await kernel.observe(())).tables == {}, "not in this namespace"
    await kernel.drop_namespace(Path(found.namespace))


async def test_vlan_of_a_link_is_made_below_all_that_stand_on_it(tmp_path: Path) -> None:
    """Kernels without 802.1Q (as the one that this was written on) refuse it in words."""
    kernel = FakeKernel()
    kernel.nics = {"nic0"}
    found = await site_instance(kernel, tmp_path)
    want = desired(site_plan("nic0.20"), (found,))
    await kernel.apply(diff(want, await kernel.observe(want.sysctls)))
    assert diff(want, await kernel.observe(want.sysctls)) == ()
    (vlan,) = (link for link in want.links.values() if link.kind == "vlan")
    await kernel.apply([Op(verb="remove", item=vlan)])
    again = diff(want, await kernel.observe(want.sysctls))
    assert [op.item.kind for op in again if isinstance(op, Op) and isinstance(op.item, Link)] == [
        "vlan", "macvlan", "macvlan",
    ]  # fmt: skip
    await kernel.apply(again)
    await kernel.drop_namespace(Path(found.namespace))
    kernel.kinds = {"macvlan"}
    with pytest.raises(CommandFailed, match="vlan fle"):
        await kernel.apply([Op(verb="add", item=vlan)])


@pytest.mark.kernel
def test_kinds_that_a_kernel_is_said_to_have_it_can_make() -> None:
    """And nothing is made by asking; what it lacks is refused."""
    with own_network_namespace():
        made = {}
        for words in ("nic0 type veth peer name nic1", "veth7 type veth peer name nic2"):
            subprocess.run(["ip", "link", "add", *words.split()], check=True)
        for kind, words in (("macvlan", ""), ("ipvlan", ""), ("vlan", "id 20")):
            argv = ["ip", "link", "add", "link", "nic0", "name", f"x{kind}", "type", kind, *words.split()]
            made[kind] = subprocess.run(argv, check=False, capture_output=True).returncode == 0
            subprocess.run(["ip", "link", "del", f"x{kind}"], check=False, capture_output=True)
        before = subprocess.run(["ip", "-br", "link"], check=True, capture_output=True).stdout
        assert set(link_kinds()) == {kind for kind, found in made.items() if found} >= {"macvlan"}
        assert subprocess.run(["ip", "-br", "link"], check=True, capture_output=True).stdout == before
        subprocess.run(["ip", "link", "set", "nic0", "up", "mtu", "1400"], check=True)
        assert nics() == (
            Nic(name="nic0", mtu=1400), Nic(name="nic1", up=False), Nic(name="nic2", up=False),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "driver", "parent", "options"),
    [
        ("vlan", "macvlan", "nic0.20", {}),
        ("ipvlan", "ipvlan", "nic0", {"mode": "l2", "flag": "vepa"}),
        ("ipvlan", "ipvlan", "nic0", {"mode": "l3"}),
    ],
)
async def test_kind_of_link_is_made_where_the_kernel_has_it_and_refused_where_not(
    kernel: Kernel, nic: None, tmp_path: Path, kind: str, driver: str, parent: str, options: dict[str, str]
) -> None:
    found = await site_instance(kernel, tmp_path)
    want = desired(site_plan(parent, driver, **options), (found,))
    todo = diff(want, await kernel.observe(want.sysctls, inner(want)))
    if isinstance(kernel, FakeKernel) or kind in link_kinds():
        await kernel.apply(todo)
        assert diff(want, await kernel.observe(want.sysctls, inner(want))) == ()
    else:
        with pytest.raises(CommandFailed, match=f"refused to add {kind} fl.*: Operation not supported"):
            await kernel.apply(todo)
    await kernel.drop_namespace(Path(found.namespace))
