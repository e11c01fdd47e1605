"""From the networks a spec names to the networks there are. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from controller.snapshot import Cluster
from model.addressranges import parse
from model.errors import FlotaError, InvalidInput, NotFound
from model.ids import InstanceId, NetworkId, resolve, short
from model.netoptions import SITE_DRIVERS
from model.records import Network, ResolvedAttachment
from model.spec import Attachment, ContainerSpec, EndpointWish, Publish
from net.host import INGRESS, PREDEFINED_BRIDGE
from net.ipam import check_address
from net.subnets import subnet_of

MODES = frozenset({"host", "none"})
CONTAINER = "container:"


def is_mode(name: str) -> bool:
    """`host`, `none` and `container:NAME` are ways to have no network of one's own."""
    return name in MODES or name.startswith(CONTAINER)


def shared_with(spec: ContainerSpec) -> str:
    """The container whose network namespace is shared, empty for none."""
    names = [a.network for a in spec.networks if a.network.startswith(CONTAINER)]
    return names[0].removeprefix(CONTAINER) if names else ""


def sharing(spec: ContainerSpec, other: InstanceId) -> ContainerSpec:
    """By the id of the container whose network namespace it shares: a name may be another's tomorrow."""
    networks = (
        replace(wish, network=f"{CONTAINER}{other}") if wish.network.startswith(CONTAINER) else wish
        for wish in spec.networks
    )
    return replace(spec, networks=tuple(networks))


def shares_namespace(cluster: Cluster, spec: ContainerSpec) -> str:
    """`its host` or `container NAME` when a container has no network namespace of its own, else empty."""
    if ref := shared_with(spec):
        other = cluster.instances.get(InstanceId(ref))
        return f"container {short(ref) if other is None else other.name}"
    return "its host" if any(a.network == "host" for a in spec.networks) else ""


def resolve_attachments(cluster: Cluster, spec: ContainerSpec) -> tuple[ResolvedAttachment, ...]:
    """Raises NotFound for an unknown network, InvalidInput for one named twice or mixed with a mode."""
    wishes = spec.networks or (Attachment(network=PREDEFINED_BRIDGE),)
    if any(is_mode(wish.network) for wish in wishes):
        if len(wishes) > 1:
            raise InvalidInput("network mode host, none or container:NAME excludes other networks")
        return ()
    found = tuple(attachment_of(network_named(cluster, wish.network), wish) for wish in wishes)
    if len({attachment.network for attachment in found}) < len(found):
        raise InvalidInput("a network is named twice")
    return found


def check_published(
    cluster: Cluster, attachments: Iterable[ResolvedAttachment], ports: Iterable[Publish]
) -> None:
    """Raises InvalidInput where a host's ports could not lead to the container: its way out is the site's
    router, so answers would not come by the host."""
    open_ = (cluster.networks[a.network].spec for a in sorted(attachments, key=lambda a: -a.priority))
    way = next((spec for spec in open_ if not spec.internal), None)
    if way is None or way.driver not in SITE_DRIVERS or all(port.mode != "host" for port in ports):
        return
    raise InvalidInput(
        f"ports can't be published: the way out is network {way.name}, on which the container has an address "
        "of its own",
        hint="Reach it there, or let another network be the way out: --network name=…,gw-priority=1",
    )


def network_named(cluster: Cluster, ref: str) -> Network:
    """By id, name or unique id prefix. Raises NotFound, Ambiguous."""
    pairs = ((network.id, network.spec.name) for network in cluster.networks.values())
    try:
        ident = resolve("network", ref, pairs)
    except NotFound as error:
        raise NotFound(error.message, hint="`flota network ls` lists them") from error
    return cluster.networks[NetworkId(ident)]


def network_if_any(cluster: Cluster, ref: str) -> Network | None:
    """As `network_named`, for records: their network may be gone, and modes are none."""
    try:
        return None if is_mode(ref) else network_named(cluster, ref)
    except FlotaError:
        return None


def attachment_of(network: Network, wish: EndpointWish) -> ResolvedAttachment:
    """The wish, for a network that was found, its addresses in the one spelling by which all others know
    them. Raises InvalidInput for an address that the network can't give, for names where there are none, and
    for the network that no container joins by itself."""
    if network.id == INGRESS:
        raise InvalidInput(
            f"network {network.spec.name} is not for containers: it carries the published ports of services"
        )
    if (named := (*wish.aliases, *wish.links)) and network.id == PREDEFINED_BRIDGE:
        raise InvalidInput(
            f"network {network.spec.name} has no names, so {named[0]} would never be found",
            hint="Use a network of your own: flota network create",
        )
    if network.spec.driver in SITE_DRIVERS and (wish.bandwidth_in or wish.bandwidth_out):
        raise InvalidInput(
            f"bandwidth is not limited on network {network.spec.name}: what a container sends there does not "
            "pass its host",
            hint="Limit it at the site's switch or router, or use another network",
        )
    for text, version in ((wish.ipv4, 4), (wish.ipv6, 6)):
        for first, last in parse(text, version) if text else ():
            if first == last:
                check_address(network.spec, str(first))
            elif subnet_of(network.spec, str(first)) != subnet_of(network.spec, str(last)):
                raise InvalidInput(f"network {network.spec.name}: {first}-{last} lies in several subnets")
    fields = {name: getattr(wish, name) for name in EndpointWish.__struct_fields__}
    fields |= {"ipv4": _spelled(wish.ipv4, 4), "ipv6": _spelled(wish.ipv6, 6)}
    return ResolvedAttachment(network=network.id, **fields)


def _spelled(text: str, version: int) -> str:
    """A single address as `ipaddress` writes it; a list as its user did."""
    spans = parse(text, version) if text else ()
    return str(spans[0][0]) if len(spans) == 1 and spans[0][0] == spans[0][1] else text
