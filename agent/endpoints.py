"""An instance's feet on its networks: mode, addresses, published ports."""

from __future__ import annotations

from collections.abc import Sequence

from agent.context import Context
from model.errors import InUse, NotFound, WrongState
from model.ids import InstanceId, resolve
from model.image import ImageConfig
from model.records import Instance, ResolvedAttachment
from model.spec import ContainerSpec, Publish
from model.status import BoundPort, Endpoint
from net.host import EndpointRequest, PublishRequest

HOST, NONE, CONTAINER = "host", "none", "container:"
TRIES = 16
"""How often a free port is looked for anew when others take the one that was found."""


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


def feet(context: Context, want: Instance, own: Sequence[Endpoint]) -> Sequence[Endpoint]:
    """The endpoints in its namespace: its `own`, or those of the container whose namespace it shares."""
    mode = mode_of(want.spec)
    if not mode.startswith(CONTAINER):
        return own
    record = context.records.get(_other(context, mode.removeprefix(CONTAINER)))
    return record.endpoints if record is not None else ()


def _other(context: Context, ref: str) -> InstanceId:
    pairs = ((i.id, i.name) for i in context.wishes.values())
    other = InstanceId(resolve("container", ref, pairs))
    record = context.records.get(other)
    if record is None or not record.live:
        raise WrongState(f"container {ref} does not run on this host", hint="Start it first")
    return other


async def connect(context: Context, want: Instance) -> tuple[Endpoint, ...]:
    """All endpoints, in the order of the attachments; the first is the way out. Done again, it finds the same
    addresses."""
    if mode_of(want.spec):
        return ()
    made = []
    for index, attachment in enumerate(want.attachments):
        made.append(await context.network.attach(_request(context, want, attachment, index)))
    return tuple(made)


def _request(context: Context, want: Instance, attachment: ResolvedAttachment, index: int) -> EndpointRequest:
    network = context.view.networks.get(attachment.network)
    if network is None:
        raise NotFound(f"network {attachment.network[:12]} is not on this host yet")
    now = context.clock.now()
    fixed = network.fixed.get(want.id, "")
    wanted4 = attachment.ipv4 or ("" if ":" in fixed else fixed)
    wanted6 = attachment.ipv6 or (fixed if ":" in fixed else "")
    return EndpointRequest(
        instance=want.id,
        network=attachment.network,
        ifname=f"eth{index}",
        ipv4=context.addresses.take(network, want.id, 4, now, wanted=wanted4),
        ipv6=context.addresses.take(network, want.id, 6, now, wanted=wanted6),
        mac=attachment.mac,
        default_route=index == 0,
    )


async def publish(
    context: Context, want: Instance, image: ImageConfig, endpoints: Sequence[Endpoint]
) -> tuple[BoundPort, ...]:
    """Published ports, each with a number. Raises InUse when one that was asked for is taken; nothing is
    published then. A port of our own choice that somebody else takes meanwhile is chosen anew."""
    wishes = [*want.spec.ports, *(_exposed(want.spec, image) if want.spec.publish_all else ())]
    if not wishes or not endpoints:
        return ()
    first, lost = endpoints[0], set[tuple[str, int]]()
    while True:
        ports = _numbered(context, wishes, lost)
        request = PublishRequest(instance=want.id, ipv4=first.ipv4, ipv6=first.ipv6, ports=ports)
        try:
            await context.network.publish(request)
            return ports
        except InUse:
            chosen = {
                (p.protocol, p.published) for w, p in zip(wishes, ports, strict=True) if not w.published
            }
            if not chosen or len(lost) >= TRIES:
                raise
            lost |= chosen


def _numbered(
    context: Context, wishes: Sequence[Publish], lost: set[tuple[str, int]]
) -> tuple[BoundPort, ...]:
    """A number for each; free ones differ from each other and from those that were lost to others."""
    used = {(w.protocol, w.published) for w in wishes if w.published} | lost
    ports = []
    for wish in wishes:
        number = wish.published
        if not number:
            number = context.network.free_port(wish.protocol, wish.host_ip, but=frozenset(used))
            used.add((wish.protocol, number))
        ports.append(
            BoundPort(target=wish.target, published=number, protocol=wish.protocol, host_ip=wish.host_ip)
        )
    return tuple(ports)


def _exposed(spec: ContainerSpec, image: ImageConfig) -> list[Publish]:
    asked = {(p.target, p.protocol) for p in spec.ports}
    found = []
    for text in image.exposed_ports:
        number, _, protocol = text.partition("/")
        kind = protocol or "tcp"
        if number.isdecimal() and kind in ("tcp", "udp", "sctp") and (int(number), kind) not in asked:
            found.append(Publish(target=int(number), protocol=kind))  # type: ignore[arg-type]
    return found


async def disconnect(context: Context, instance: InstanceId) -> None:
    """All of it goes; the addresses rest for a while before they are used again."""
    await context.network.unpublish(instance)
    await context.network.drop_namespace(instance)
    context.addresses.give_back(instance, context.clock.now())
