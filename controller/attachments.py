"""From the networks a spec names to the networks there are. Pure."""

from __future__ import annotations

from controller.snapshot import Cluster
from model.errors import InvalidInput, NotFound
from model.ids import NetworkId, resolve
from model.records import Network, ResolvedAttachment
from model.spec import Attachment, ContainerSpec
from net.host import PREDEFINED_BRIDGE

MODES = frozenset({"host", "none"})
CONTAINER = "container:"


def is_mode(name: str) -> bool:
    """`host`, `none` and `container:NAME` are ways to have no network of one's own."""
    return name in MODES or name.startswith(CONTAINER)


def shared_with(spec: ContainerSpec) -> str:
    """The container whose network namespace is shared, empty for none."""
    names = [a.network for a in spec.networks if a.network.startswith(CONTAINER)]
    return names[0].removeprefix(CONTAINER) if names else ""


def resolve_attachments(cluster: Cluster, spec: ContainerSpec) -> tuple[ResolvedAttachment, ...]:
    """Raises NotFound for an unknown network, InvalidInput for one named twice or mixed with a mode."""
    wishes = spec.networks or (Attachment(network=PREDEFINED_BRIDGE),)
    if any(is_mode(wish.network) for wish in wishes):
        if len(wishes) > 1:
            raise InvalidInput("network mode host, none or container:NAME excludes other networks")
        return ()
    found = tuple(_resolve(cluster, wish) for wish in wishes)
    if len({attachment.network for attachment in found}) < len(found):
        raise InvalidInput("a network is named twice")
    return found


def network_named(cluster: Cluster, ref: str) -> Network:
    """By id, name or unique id prefix. Raises NotFound, Ambiguous."""
    pairs = ((network.id, network.spec.name) for network in cluster.networks.values())
    try:
        ident = resolve("network", ref, pairs)
    except NotFound as error:
        raise NotFound(error.message, hint="`flota network ls` lists them") from error
    return cluster.networks[NetworkId(ident)]


def _resolve(cluster: Cluster, wish: Attachment) -> ResolvedAttachment:
    return ResolvedAttachment(
        network=network_named(cluster, wish.network).id,
        aliases=wish.aliases,
        ipv4=wish.ipv4,
        ipv6=wish.ipv6,
        mac=wish.mac,
    )
