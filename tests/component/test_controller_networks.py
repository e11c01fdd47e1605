"""Containers put on networks and taken off them, through the controller's port; bad wishes change nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from model.api import (
    ConnectNetwork,
    CreateInstance,
    DisconnectNetwork,
    InstanceInfo,
    StopRequest,
    UpdateBandwidth,
    UpdatePorts,
)
from model.errors import AlreadyExists, FlotaError, InUse, InvalidInput, NotFound, WrongState
from model.records import Network
from model.spec import Attachment, ContainerSpec, EndpointWish, NetworkSpec, Publish, ServiceSpec, Subnet
from model.status import HostReport, Phase
from tests.support.agents import make_host
from tests.support.fleet import Fleet, fleet
from tests.support.waiting import until

DEADLINE = 5.0
BACK = NetworkSpec(name="back", subnets=(Subnet(cidr="10.50.0.0/16", exclude=("10.50.0.9",)),))
LOCAL = NetworkSpec(name="local", driver="bridge", subnets=(Subnet(cidr="10.51.0.0/24"),))


async def run(f: Fleet, name: str, *networks: str, **spec: Any) -> InstanceInfo:
    wanted = tuple(Attachment(network=n) for n in networks)
    container = ContainerSpec(image="busybox", networks=wanted, **spec)
    await f.controller.create_instance(CreateInstance(spec=container, name=name, start=True))
    await f.controller.wait_instance(name, "running")
    return f.controller.get_instance(name)


async def connect(f: Fleet, network: str, container: str, **wish: Any) -> InstanceInfo:
    request = ConnectNetwork(container=container, endpoint=EndpointWish(**wish))
    await f.controller.connect_network(network, request)
    await asyncio.wait_for(f.controller.wait_instance(container, "wired"), DEADLINE)
    return f.controller.get_instance(container)


def networks_of(info: InstanceInfo) -> list[str]:
    return [endpoint.network_name for endpoint in info.status.endpoints]


async def test_running_container_goes_on_a_network_and_off_it() -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        await f.controller.create_network(BACK)
        await run(f, "box", "none")
        info = await connect(f, "back", "box", aliases=("db",), priority=3)
        assert networks_of(info) == ["back"]
        assert info.instance.attachments[0].aliases == ("db",) and info.instance.attachments[0].priority == 3
        assert f.controller.get_network("back").endpoints.keys() == {"box"}
        assert len(f.controller.get_network("back").blocks) == 1
        with pytest.raises(InUse, match=r"in use by container box.*disconnect"):
            await f.controller.remove_network("back")
        with pytest.raises(AlreadyExists, match="on network back already"):
            await connect(f, "back", "box")
        await f.controller.disconnect_network("back", DisconnectNetwork(container="box"))
        await asyncio.wait_for(f.controller.wait_instance("box", "wired"), DEADLINE)
        assert networks_of(f.controller.get_instance("box")) == []
        with pytest.raises(NotFound, match="not on network back"):
            await f.controller.disconnect_network("back", DisconnectNetwork(container="box"))
        await f.controller.disconnect_network("back", DisconnectNetwork(container="box", force=True))
        await f.controller.remove_network("back")


async def test_stopped_container_is_connected_for_its_next_start() -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_network(LOCAL)
        await run(f, "box")
        await f.controller.stop_instance("box", StopRequest())
        await f.controller.wait_instance("box", "stopped")
        await connect(f, "local", "box", ipv4="10.51.0.7")
        await f.controller.start_instance("box")
        await f.controller.wait_instance("box", "running")
        assert networks_of(f.controller.get_instance("box")) == ["bridge", "local"]


@pytest.mark.parametrize(
    ("network", "container", "wish", "error", "words"),
    [
        ("nothing", "box", {}, NotFound, "no such network"),
        ("back", "nobody", {}, NotFound, "no such container"),
        ("back", "lone", {}, WrongState, "has the network of its host"),
        ("back", "guest", {}, WrongState, "has the network of container box"),
        ("back", "web", {}, WrongState, "belongs to service web"),
        ("back", "box", {"ipv4": "10.60.0.1"}, InvalidInput, "in no subnet of network back"),
        ("back", "box", {"ipv4": "10.50.0.1"}, InvalidInput, "reserved"),
        ("back", "box", {"ipv4": "10.50.255.255"}, InvalidInput, "reserved"),
        ("back", "box", {"ipv4": "10.50.0.9"}, InvalidInput, "set aside"),
        ("back", "box", {"ipv4": "10.50.0.77"}, InUse, "belongs to other"),
        ("local", "box", {"ipv4": "10.51.0.77"}, InUse, "belongs to other"),
        ("back", "box", {"ipv6": "fd00::1"}, InvalidInput, "in no subnet"),
        ("back", "box", {"ipv4": "010.50.0.1"}, InvalidInput, "not an IPv4 address"),
        ("back", "box", {"mac": "01:00:5e:00:00:01"}, InvalidInput, "not a unicast MAC"),
        ("back", "box", {"ifname": "much-too-long-name"}, InvalidInput, "no interface name"),
        (
            "back",
            "box",
            {"sysctls": {"net.ipv4.ip_forward": "1"}},
            InvalidInput,
            "no setting of an interface",
        ),
        ("back", "box", {"sysctls": {"net.ipv4.conf.IFNAME.x/../y": "1"}}, InvalidInput, "no setting"),
    ],
)
async def test_connection_that_cannot_be_is_refused_and_changes_nothing(
    network: str, container: str, wish: dict[str, Any], error: type[FlotaError], words: str
) -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_network(BACK)
        await f.controller.create_network(LOCAL)
        await run(f, "box")
        await run(f, "other")
        await connect(f, "back", "other", ipv4="10.50.0.77")
        await connect(f, "local", "other", ipv4="10.51.0.77")
        await run(f, "lone", "host")
        await run(f, "guest", "container:box")
        await f.controller.create_service(ServiceSpec(name="web", container=ContainerSpec(image="busybox")))
        await until(lambda: f.controller.get_service("web").running == 1, deadline=DEADLINE)
        if container == "web":
            container = f.controller.get_service("web").instances[0].instance.name
        before = f.controller.snapshot()
        with pytest.raises(error, match=words):
            await connect(f, network, container, **wish)
        assert f.controller.snapshot().revision == before.revision


async def test_shared_network_stays_that_containers_when_its_name_is_anothers() -> None:
    async with fleet(make_host(1)) as f:
        box = await run(f, "box")
        guest = await run(f, "guest", "container:box")
        assert guest.instance.spec.networks == (Attachment(network=f"container:{box.instance.id}"),)
        await f.controller.rename_instance("box", "old")
        with pytest.raises(WrongState, match="has the network of container old"):
            await connect(f, "bridge", "guest")
        with pytest.raises(InvalidInput, match="excludes other networks"):
            await run(f, "both", "container:old", "bridge")


async def test_prune_takes_what_nobody_uses_and_fits_the_filters() -> None:
    async with fleet(make_host(1)) as f:
        for name in ("used", "old", "kept"):
            await f.controller.create_network(NetworkSpec(name=name))
        await run(f, "box", "used")

        def chosen(network: Network) -> bool:
            return network.spec.name != "kept"

        assert (await f.controller.prune_networks(chosen)).removed == ("old",)
        names = [n.network.spec.name for n in f.controller.list_networks()]
        assert names == ["bridge", "kept", "used"]
        assert (await f.controller.prune_networks(lambda _: True)).removed == ("kept",)


async def test_ports_of_a_running_container_are_added_and_taken_away() -> None:
    async with fleet(make_host(1)) as f:
        await run(f, "box", ports=(Publish(target=80, published=8080),))
        await run(f, "other", ports=(Publish(target=80, published=8081),))

        async def update(add: tuple[Publish, ...] = (), remove: tuple[Publish, ...] = ()) -> list[int]:
            await f.controller.update_ports("box", UpdatePorts(add=add, remove=remove))
            await asyncio.wait_for(f.controller.wait_instance("box", "wired"), DEADLINE)
            return [port.published for port in f.controller.get_instance("box").status.ports]

        assert await update(add=(Publish(target=81, published=9000),)) == [8080, 9000]
        before = f.controller.snapshot().revision
        with pytest.raises(InUse, match="8081/tcp is in use on host1"):
            await update(add=(Publish(target=82, published=8081),))
        with pytest.raises(InvalidInput, match="published twice"):
            await update(add=(Publish(target=82, published=9000),))
        with pytest.raises(NotFound, match="publishes no port 99/tcp"):
            await update(remove=(Publish(target=99),))
        with pytest.raises(InvalidInput, match="70000 is not a port"):
            await update(add=(Publish(target=70000),))
        assert f.controller.snapshot().revision == before
        assert await update(remove=(Publish(target=80),)) == [9000]
        swap = (Publish(target=81, published=9000),)
        assert await update(add=(Publish(target=82, published=9000),), remove=swap) == [9000]


async def test_ports_of_one_without_a_network_wait_for_its_first() -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_network(LOCAL)
        await run(f, "box", "none")
        more = UpdatePorts(add=(Publish(target=80, published=8080),))
        with pytest.raises(WrongState, match="on no network"):
            await f.controller.update_ports("box", more)
        await connect(f, "local", "box")
        await f.controller.update_ports("box", more)
        assert (await asyncio.wait_for(f.controller.wait_instance("box", "wired"), DEADLINE)).message == ""


async def test_port_that_a_foreign_program_holds_is_refused_at_once() -> None:
    async with fleet(make_host(1)) as f:
        [host] = f.hosts.values()
        await run(f, "box")
        report = HostReport(host=host.id, used_ports=(("tcp", 22),))
        f.controller.statuses.report(report, host.id)
        with pytest.raises(InUse, match="22/tcp"):
            await f.controller.update_ports("box", UpdatePorts(add=(Publish(target=80, published=22),)))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (NetworkSpec(name="x", subnets=(Subnet(cidr="10.50.1.0/24"),)), "overlaps .* of network back"),
        (NetworkSpec(name="x", subnets=(Subnet(cidr="192.0.2.0/24"),)), "contains the host address"),
        (NetworkSpec(name="x", subnets=(Subnet(cidr="172.29.0.0/24"),)), "overlaps .* of network bridge"),
        *(
            (NetworkSpec(name="x", subnets=(Subnet(cidr=cidr),)), "reserved|invalid subnet|has no room")
            for cidr in ("0.0.0.0/0", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/8",
                         "10.9.0.1/32", "10.9.0.0/33", "10.9.0.1/24", "::ffff:10.0.0.0/104", "fd00::1/128",
                         "fe80::%1/64", "010.1.1.0/24")
        ),
        (NetworkSpec(name="x", subnets=(Subnet(cidr="10.9.0.0/24", gateway="10.9.1.1"),)), "not an address"),
        (NetworkSpec(name="x", subnets=(Subnet(cidr="10.9.0.0/24", gateway="10.9.0.255"),)), "broadcast"),
        (NetworkSpec(name="x", subnets=(Subnet(cidr="10.9.0.0/24", ip_range="10.8.0.0/25"),)), "not a range"),
        (NetworkSpec(name="x", subnets=(Subnet(cidr="10.9.0.0/24", exclude=("10.8.0.1",)),)), "is not in"),
        (NetworkSpec(name="x", options={"vni": "0"}), "not 1 to 16777215"),
        (NetworkSpec(name="x", options={"vni": "16777216"}), "not 1 to 16777215"),
        (NetworkSpec(name="x", options={"vni": "4096"}), "in use by network back"),
        (NetworkSpec(name="x", options={"mtu": "0"}), "not 576 to 65535"),
        (NetworkSpec(name="x", options={"mtu": "67"}), "not 576 to 65535"),
        (NetworkSpec(name="x", options={"mtu": "65536"}), "not 576 to 65535"),
        (NetworkSpec(name="x", options={"mtu": "1279"}, ipv6=True), "less than the 1280 that IPv6 needs"),
        (NetworkSpec(name="x", options={"mtu": "1451"}), "does not fit: tunnels of host1 carry 1450"),
        (NetworkSpec(name="x", options={"com.docker.network.bridge.name": "b"}, driver="bridge"), "bridge's"),
        (NetworkSpec(name="x", options={"icc": "maybe"}), "is not on or off"),
        (NetworkSpec(name="x", options={"speed": "9"}), "unknown option"),
        (NetworkSpec(name="x", options={"vni": "9"}, driver="bridge"), "unknown option"),
        (NetworkSpec(name="host"), "reserved"),
        (NetworkSpec(name="x", driver="magic"), "unknown network driver"),
    ],
)  # fmt: skip
async def test_network_that_cannot_be_is_refused_and_changes_nothing(spec: NetworkSpec, words: str) -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_network(BACK)
        before = f.controller.snapshot().revision
        with pytest.raises((InvalidInput, AlreadyExists), match=words):
            await f.controller.create_network(spec)
        assert f.controller.snapshot().revision == before


async def test_dockers_names_of_options_are_stored_under_ours() -> None:
    async with fleet(make_host(1)) as f:
        options = {"com.docker.network.bridge.enable_icc": "false", "com.docker.network.driver.mtu": "1400"}
        made = await f.controller.create_network(NetworkSpec(name="x", driver="bridge", options=options))
        assert made.network.spec.options == {"icc": "off", "mtu": "1400"}


async def test_bandwidth_is_changed_where_one_network_is_meant() -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_network(BACK)
        await f.controller.create_network(LOCAL)
        await run(f, "box", "back")
        await f.controller.update_bandwidth("box", UpdateBandwidth(bandwidth_in=10**8))
        await f.controller.update_bandwidth("box", UpdateBandwidth(network="back", bandwidth_out=10**7))
        wish = f.controller.get_instance("box").instance.attachments[0]
        assert (wish.bandwidth_in, wish.bandwidth_out) == (10**8, 10**7)
        await connect(f, "local", "box", bandwidth_in=10**6)
        for request, error in (
            (UpdateBandwidth(bandwidth_in=0), InvalidInput),
            (UpdateBandwidth(network="bridge", bandwidth_in=0), NotFound),
            (UpdateBandwidth(network="back", bandwidth_in=7), InvalidInput),
        ):
            with pytest.raises(error):
                await f.controller.update_bandwidth("box", request)
        after = f.controller.get_instance("box").instance.attachments
        assert [(a.bandwidth_in, a.bandwidth_out) for a in after] == [(10**8, 10**7), (10**6, 0)]


async def test_a_full_network_is_a_condition_of_the_service_that_goes_by_itself() -> None:
    """Not placed while nothing can be leased; placed, and short on its host, while all of a share is held."""
    async with fleet(make_host(1)) as f:
        tight = NetworkSpec(name="tight", subnets=(Subnet(cidr="10.50.0.0/29"),))
        ident = (await f.controller.create_network(tight)).network.id
        (agent,) = f.agents.values()
        container = ContainerSpec(image="x", networks=(Attachment(network="tight"),))
        await f.controller.create_service(ServiceSpec(name="web", container=container))
        await until(lambda: f.controller.get_service("web").running == 1, deadline=DEADLINE)
        (web,) = agent.host.statuses

        def conditions() -> list[str]:
            return [c.type for c in f.controller.get_service("web").service.conditions]

        agent._put(web, phase=Phase.PREPARING, endpoints=())
        agent.host.report = HostReport(host=agent.host.id, short=(ident,))
        await agent.report([agent.host.statuses[web]])
        await agent.tell_host()
        await until(lambda: conditions() == ["short"], deadline=DEADLINE)
        (told,) = f.controller.get_service("web").explanation
        assert told.startswith("1 instance waits: no address free in network tight (10.50.0.0/29: 0 of")
        agent._put(web, phase=Phase.RUNNING)
        agent.host.report = HostReport(host=agent.host.id)
        await agent.tell_host()
        await agent.report([agent.host.statuses[web]])
        await until(lambda: conditions() == [], deadline=DEADLINE)
