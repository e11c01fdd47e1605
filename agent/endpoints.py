"""An instance's feet on its networks: mode, addresses, published ports."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from agent.context import Context
from model.errors import NotFound, WrongState
from model.ids import InstanceId, resolve
from model.image import ImageConfig
from model.records import Instance, ResolvedAttachment
from model.spec import ContainerSpec, Publish
from model.status import BoundPort, Endpoint
from net.host import EndpointRequest, PublishRequest

HOST, NONE, CONTAINER = "host", "none", "container:"


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
        return await context.network.open_namespace(_other(context, mode.removeprefix(CONTAINER)))
    return await context.network.open_namespace(want.id)


def _other(context: Context, ref: str) -> InstanceId:
    pairs = ((i.id, i.name) for i in context.wishes.values())
    other = InstanceId(resolve("container", ref, pairs))
    record = context.records.get(other)
    if record is None or not record.live:
        raise WrongState(f"container {ref} does not run on this host", hint="Start it first")
    return other


async def connect(context: Context, want: Instance, before: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """All endpoints, in the order of the attachments; the first is the way out. An address that it had and
    that is still free is its again."""
    if mode_of(want.spec):
        return ()
    made = []
    for index, attachment in enumerate(want.attachments):
        request = _request(context, want, attachment, index, before)
        made.append(await context.network.attach(request))
    return tuple(made)


def _request(
    context: Context, want: Instance, attachment: ResolvedAttachment, index: int, before: Sequence[Endpoint]
) -> EndpointRequest:
    network = context.view.networks.get(attachment.network)
    if network is None:
        raise NotFound(f"network {attachment.network[:12]} is not on this host yet")
    had = next((e for e in before if e.network == attachment.network), None)
    taken = context.addresses(attachment.network)
    now = context.clock.now()
    fixed = network.fixed.get(want.id, "")
    ipv4 = attachment.ipv4 or (fixed if ":" not in fixed else "") or (had.ipv4 if had else "")
    ipv6 = attachment.ipv6 or (fixed if ":" in fixed else "") or (had.ipv6 if had else "")
    ipv4, ipv6 = ipv4 or taken.choose(network, 4, now), ipv6 or taken.choose(network, 6, now)
    for address in filter(None, (ipv4, ipv6)):
        taken.hold(address)
    return EndpointRequest(
        instance=want.id,
        network=attachment.network,
        ifname=f"eth{index}",
        ipv4=ipv4,
        ipv6=ipv6,
        mac=attachment.mac,
        default_route=index == 0,
    )


async def publish(
    context: Context, want: Instance, image: ImageConfig, endpoints: Sequence[Endpoint]
) -> tuple[BoundPort, ...]:
    """Published ports, each with a number. Raises InUse when one is taken; nothing is published then."""
    wishes = [*want.spec.ports, *(_exposed(want.spec, image) if want.spec.publish_all else ())]
    if not wishes or not endpoints:
        return ()
    network = context.network
    ports = tuple(
        BoundPort(
            target=wish.target,
            published=wish.published or network.free_port(wish.protocol, wish.host_ip),
            protocol=wish.protocol,
            host_ip=wish.host_ip,
        )
        for wish in wishes
    )
    first = endpoints[0]
    await network.publish(PublishRequest(instance=want.id, ipv4=first.ipv4, ipv6=first.ipv6, ports=ports))
    return ports


def _exposed(spec: ContainerSpec, image: ImageConfig) -> list[Publish]:
    asked = {(p.target, p.protocol) for p in spec.ports}
    found = []
    for text in image.exposed_ports:
        number, _, protocol = text.partition("/")
        kind = protocol or "tcp"
        if number.isdecimal() and kind in ("tcp", "udp", "sctp") and (int(number), kind) not in asked:
            found.append(Publish(target=int(number), protocol=kind))  # type: ignore[arg-type]
    return found


async def disconnect(context: Context, instance: InstanceId, endpoints: Sequence[Endpoint]) -> None:
    """All of it goes; the addresses rest for a while before they are used again."""
    await context.network.unpublish(instance)
    await context.network.drop_namespace(instance)
    now = context.clock.now()
    for endpoint in endpoints:
        for address in filter(None, (endpoint.ipv4, endpoint.ipv6)):
            with contextlib.suppress(ValueError):
                context.addresses(endpoint.network).release(address, now)
