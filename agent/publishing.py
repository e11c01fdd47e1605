"""An instance's published ports: which numbers they get on this host."""

from __future__ import annotations

from collections.abc import Sequence

from agent.context import Context
from model.errors import InUse
from model.exposed import exposed
from model.image import ImageConfig
from model.records import Instance
from model.spec import ContainerSpec, Publish
from model.status import BoundPort
from net.host import FIRST_PORT, LAST_PORT, PublishRequest

TRIES = 16
"""How often a free port is looked for anew when others take the one that was found."""


async def publish(
    context: Context,
    want: Instance,
    image: ImageConfig,
    addresses: tuple[str, str],
    *,
    held: Sequence[BoundPort] = (),
) -> tuple[BoundPort, ...]:
    """Published ports, each with a number, leading to these addresses (IPv4, IPv6). Raises InUse when one
    that was asked for is taken; nothing is changed then. A port of our own choice stays what it is in
    `held`; one that somebody else takes meanwhile is chosen anew."""
    wishes = [*want.spec.ports, *(_exposed(want.spec, image) if want.spec.publish_all else ())]
    ipv4, ipv6 = addresses
    if not wishes or not (ipv4 or ipv6):
        if held:
            await context.network.unpublish(want.id)
        return ()
    lost = set[tuple[str, int]]()
    while True:
        ports = _numbered(context, wishes, lost, held)
        request = PublishRequest(instance=want.id, ipv4=ipv4, ipv6=ipv6, ports=ports)
        try:
            await context.network.publish(request)
            return ports
        except InUse:
            chosen = {(p.protocol, p.published) for w, p in zip(wishes, ports, strict=True) if not _given(w)}
            if not chosen or len(lost) >= TRIES:
                raise
            lost |= chosen


def _numbered(
    context: Context, wishes: Sequence[Publish], lost: set[tuple[str, int]], held: Sequence[BoundPort]
) -> tuple[BoundPort, ...]:
    """A number for each: what it has already, else a free one. They differ from each other and from those
    that were lost to others."""
    used = {(w.protocol, w.published) for w in wishes if _given(w)} | lost
    ports = []
    for wish in wishes:
        number = wish.published if _given(wish) else _kept(wish, held, used)
        if not number:
            number = context.network.free_port(
                wish.protocol, wish.host_ip, but=frozenset(used), within=_range(wish)
            )
        used.add((wish.protocol, number))
        ports.append(
            BoundPort(
                target=wish.target,
                published=number,
                protocol=wish.protocol,
                host_ip=wish.host_ip,
                allow=wish.allow,
                proxy_protocol=wish.proxy_protocol,
            )
        )
    return tuple(ports)


def _given(wish: Publish) -> bool:
    """Whether its number is the user's choice."""
    return bool(wish.published) and not wish.published_to


def _range(wish: Publish) -> tuple[int, int]:
    return (wish.published, wish.published_to) if wish.published_to else (FIRST_PORT, LAST_PORT)


def _kept(wish: Publish, held: Sequence[BoundPort], used: set[tuple[str, int]]) -> int:
    """The number that this wish has now, if nobody else wants it; 0 for none."""
    for port in held:
        same = (port.target, port.protocol, port.host_ip) == (wish.target, wish.protocol, wish.host_ip)
        first, last = _range(wish)
        if same and first <= port.published <= last and (port.protocol, port.published) not in used:
            return port.published
    return 0


def _exposed(spec: ContainerSpec, image: ImageConfig) -> list[Publish]:
    """What a stranger's image says that is no port is passed over."""
    asked = {(p.target, p.protocol) for p in spec.ports}
    ports = dict.fromkeys(port for text in (*image.exposed_ports, *spec.expose) for port in exposed(text))
    return [Publish(target=number, protocol=kind) for number, kind in ports if (number, kind) not in asked]
