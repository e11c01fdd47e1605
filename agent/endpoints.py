"""An instance's feet on its networks: mode, addresses, the change of them while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial

from msgspec.structs import replace

from agent import feet
from agent.context import Context
from agent.publishing import publish
from agent.record import Local
from model.errors import Exhausted, InvalidInput, NotFound, WrongState
from model.ids import InstanceId, NetworkId, resolve
from model.image import ImageConfig
from model.netoptions import SITE_DRIVERS
from model.records import Instance, ResolvedAttachment
from model.spec import ContainerSpec, Publish, Struct
from model.status import BoundPort, Endpoint, Stranger
from net.host import INGRESS, AddressTaken, EndpointRequest
from net.naming import endpoint_mac
from net.subnets import interface_address

HOST, NONE, CONTAINER = "host", "none", "container:"
GROW_WITHIN = 5.0
"""Seconds that an endpoint waits for an address while a person waits for it."""


class Wired(Struct):
    """What stands, and the wish that it was made of."""

    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[BoundPort, ...] = ()
    attached: tuple[ResolvedAttachment, ...] = ()
    published: tuple[Publish, ...] = ()


def mode_of(spec: ContainerSpec) -> str:
    """`host`, `none`, `container:NAME`, or empty for networks of its own."""
    first = spec.networks[0].network if spec.networks else ""
    return first if first in (HOST, NONE) or first.startswith(CONTAINER) else ""


async def namespace(context: Context, want: Instance) -> str:
    """Path of the network namespace it runs in; empty for the host's. Raises NotFound, WrongState."""
    mode = mode_of(want.spec)
    if mode == HOST:
        return ""
    if mode.startswith(CONTAINER):
        other = owner(context, want)
        theirs = context.wishes.get(other)
        return (
            "" if theirs is not None and mode_of(theirs.spec) == HOST else context.network.namespace_of(other)
        )
    return await context.network.open_namespace(want.id)


def owner(context: Context, want: Instance) -> InstanceId:
    """Whose namespace it has: its own, or that of the container whose network it shares, which may share one
    in turn. Raises NotFound, WrongState."""
    found, met = want, {want.id}
    while (mode := mode_of(found.spec)).startswith(CONTAINER):
        ident = _other(context, mode.removeprefix(CONTAINER))
        if ident in met:  # names may have been given to others since
            raise WrongState(f"container {found.name} and its like share each other's network by now")
        met.add(ident)
        if (theirs := context.wishes.get(ident)) is None:
            return ident
        found = theirs
    return found.id


def in_namespace(context: Context, want: Instance, own: Sequence[Endpoint]) -> Sequence[Endpoint]:
    """The endpoints in its namespace: its `own`, or those of the container whose namespace it shares."""
    if (ident := owner(context, want)) == want.id:
        return own
    record = context.records.get(ident)
    return record.endpoints if record is not None else ()


def _other(context: Context, ref: str) -> InstanceId:
    pairs = ((i.id, i.name) for i in context.wishes.values())
    other = InstanceId(resolve("container", ref, pairs))
    record = context.records.get(other)
    if record is None or not record.live:
        named = context.wishes[other].name
        raise WrongState(f"container {named} does not run on this host", hint="Start it first")
    return other


async def wire(context: Context, want: Instance, image: ImageConfig, record: Local) -> Wired:
    """Endpoints and published ports as they are wanted now; what is not wanted any more goes. Done again,
    also after a crash anywhere within, it comes to the same end. Raises FlotaError; then some may stand
    already.

    What goes, goes last: the way out moves to its new network before the old one leaves. Only what no record
    tells of, left by a step that was cut short, goes first, for it may be in the way of a name."""
    want = context.wishes.get(
        want.id, want
    )  # a network that it has left meanwhile may be gone from this host
    mode = mode_of(want.spec)
    if mode == HOST or mode.startswith(CONTAINER):
        return Wired(attached=want.attachments, published=want.spec.ports)
    wanted = {attachment.network for attachment in want.attachments}
    told = {endpoint.network for endpoint in record.endpoints}
    unwanted = [network for network in context.network.attached(want.id) if network not in wanted]
    for network in unwanted:
        if network not in told:
            await context.network.detach(want.id, network)
    made = await _attach(context, want, record.endpoints)
    ways = feet.ways_out(want.attachments, context.view.networks)
    ports = await publish(context, want, image, _served(context, want, ways, made), held=record.ports)
    for network in unwanted:
        if network in told:
            await context.network.detach(want.id, network)
    context.addresses.settle(want.id, made, context.clock.now())
    return Wired(endpoints=made, ports=ports, attached=want.attachments, published=want.spec.ports)


def _served(
    context: Context, want: Instance, ways: feet.WaysOut, made: Sequence[Endpoint]
) -> tuple[str, str]:
    """The addresses that published ports lead to. Raises InvalidInput where there can be none."""
    site = feet.on_site(ways, context.view.networks)
    if site and any(port.mode == "host" for port in want.spec.ports):
        raise InvalidInput(
            f"ports can't be published: the way out is network {site}, on which the container has an address "
            "of its own",
            hint="Reach it there, or let another network be the way out: --network name=…,gw-priority=1",
        )
    return ("", "") if site else feet.led(ways, made)


async def _attach(context: Context, want: Instance, standing: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """All wanted endpoints, in the order of the attachments; those that are no way out first, so that a way
    is there before it is the only one."""
    names = feet.names(want.attachments, standing)
    ways = feet.ways_out(want.attachments, context.view.networks)
    requests = [await _request(context, want, a, names[a.network], ways) for a in want.attachments]
    made = {}
    attachments = {attachment.network: attachment for attachment in want.attachments}
    for request in sorted(requests, key=lambda r: r.default_route or r.default_route6):
        attachment = attachments[NetworkId(request.network)]
        made[request.network] = await _stand(context, want, attachment, request, ways)
    return tuple(
        replace(made[a.network], bandwidth_in=a.bandwidth_in, bandwidth_out=a.bandwidth_out)
        for a in want.attachments
    )


async def _stand(
    context: Context,
    want: Instance,
    attachment: ResolvedAttachment,
    request: EndpointRequest,
    ways: feet.WaysOut,
) -> Endpoint:
    """An address that a machine of the site turns out to have is set aside, and the next one tried. Raises
    AddressTaken for one that was asked for, or when one after the other is taken."""
    while True:
        try:
            return await context.network.attach(request)
        except AddressTaken as taken:
            now = context.clock.now()
            stranger = Stranger(network=attachment.network, address=taken.address, mac=taken.mac, seen_at=now)
            context.addresses.set_aside(stranger)
            again = await _request(context, want, attachment, request.ifname, ways)
            if taken.address in (again.ipv4, again.ipv6):
                raise
            request = again


async def _request(
    context: Context, want: Instance, attachment: ResolvedAttachment, ifname: str, ways: feet.WaysOut
) -> EndpointRequest:
    """Where all addresses are held or rest the controller leases more, and is waited for a little; so is
    another host that has still to give up a fixed one."""
    await _granted(context, attachment)
    await _drawn(context, want, attachment, GROW_WITHIN)
    return _asked(context, want, attachment, ifname, ways)


async def addresses(context: Context, want: Instance) -> None:
    """Have all that it needs. A replica waits for as long as it takes, and its host says that it is
    short; others fail soon, for a person waits. Raises FlotaError."""
    for attachment in want.attachments if mode_of(want.spec) == "" else ():
        if attachment.network in context.view.networks:
            await _granted(context, attachment)
            await _drawn(context, want, attachment, GROW_WITHIN if want.service is None else None)


async def _drawn(
    context: Context, want: Instance, attachment: ResolvedAttachment, patience: float | None
) -> None:
    """Take its addresses, or wait until one comes free here or the controller has leased more. Raises
    Exhausted after so many seconds."""
    try:
        _take(context, want, attachment)
    except Exhausted as error:
        try:
            async with asyncio.timeout(patience):
                await _room(context, want, attachment)
        except TimeoutError:
            raise error from None


async def _room(context: Context, want: Instance, attachment: ResolvedAttachment) -> None:
    book = context.addresses
    with book.waiting(attachment.network):
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(book.rest(attachment.network, context.clock.now())):
                    await book.renewed()
            with contextlib.suppress(Exhausted):
                _take(context, want, attachment)
                return


async def _granted(context: Context, attachment: ResolvedAttachment) -> None:
    """Raises Exhausted when a fixed address is not given up elsewhere in time."""

    def awaited() -> list[str]:
        view = context.view.networks.get(attachment.network)
        told = () if view is None else view.awaited
        return [a for a in (attachment.ipv4, attachment.ipv6) if a in told]

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GROW_WITHIN):
            while awaited():
                await context.addresses.renewed()
    if missing := awaited():
        raise Exhausted(
            f"address {missing[0]} is still held on another host, or that host does not answer",
            hint="Choose another address, or stop who has it",
        )


def _take(context: Context, want: Instance, attachment: ResolvedAttachment) -> tuple[str, str]:
    """Where the site's DHCP server gives IPv4 addresses, the IPv6 one is what its interface would make itself
    (RFC 4862)."""
    network = context.view.networks.get(attachment.network)
    if network is None:
        raise NotFound(f"network {attachment.network[:12]} is not on this host yet")
    if network.spec.ipam == "dhcp":
        return "", interface_address(network.spec, attachment.mac or endpoint_mac(want.id, network.id))
    now = context.clock.now()
    hosts = _hosts(context) if network.spec.driver in SITE_DRIVERS else frozenset[str]()
    take = partial(context.addresses.take, network, want.id, now=now, hosts=hosts)
    return (
        take(4, wanted=attachment.ipv4 or network.fixed.get(want.id, "")),
        take(6, wanted=attachment.ipv6 or network.fixed6.get(want.id, "")),
    )


def _asked(
    context: Context, want: Instance, attachment: ResolvedAttachment, ifname: str, ways: feet.WaysOut
) -> EndpointRequest:
    network = context.view.networks.get(attachment.network)
    if network is None:
        raise NotFound(f"network {attachment.network[:12]} is not on this host yet")
    ipv4, ipv6 = _take(context, want, attachment)
    return EndpointRequest(
        instance=want.id,
        network=attachment.network,
        ifname=ifname,
        ipv4=ipv4,
        ipv6=ipv6,
        mac=attachment.mac,
        default_route=network.id == (ways.ipv4 or INGRESS),
        default_route6=network.id == (ways.ipv6 or INGRESS),
        sysctls=attachment.sysctls,
        bandwidth_in=attachment.bandwidth_in // 8,
        bandwidth_out=attachment.bandwidth_out // 8,
        dhcp=network.spec.ipam == "dhcp",
        hostname=want.name if network.spec.ipam == "dhcp" else "",
    )


def _hosts(context: Context) -> frozenset[str]:
    """All addresses of hosts that are known here: on the site's networks they are among those of others."""
    facts, peers = context.facts, context.view.peers.values()
    told = (address for peer in peers for address in (peer.address, *peer.addresses))
    return frozenset((facts.address, *facts.addresses, *told))


async def disconnect(context: Context, instance: InstanceId) -> None:
    """All of it goes; the addresses rest for a while before they are used again."""
    await context.network.unpublish(instance)
    await context.network.drop_namespace(instance)
    context.addresses.give_back(instance, context.clock.now())
