"""What may be made on a host's own socket, and what it becomes. Pure: each gives a record, or raises.

Invariant: nothing here needs a controller. What only the fleet can give (a network over several hosts, a
choice of the host) is refused in words that lead there.
"""

from __future__ import annotations

from msgspec.structs import replace

from agent.wanted import Own, wishes
from model.addressranges import parse
from model.api import CreateInstance
from model.errors import AlreadyExists, InvalidInput, Unavailable, Unsupported, WrongState
from model.ids import HostId, InstanceId, NetworkId, resolve, short
from model.inventednames import invent
from model.records import Desired, Instance, ResolvedAttachment
from model.spec import Attachment, ContainerSpec, Struct
from model.validate import is_mode, validate_container, validate_name, validate_placement
from model.view import NetworkView, View
from net.host import PREDEFINED_BRIDGE
from net.ipam import check_address

CONTAINER = "container:"
ELSEWHERE = "Make it at the fleet's own endpoint"


class Here(Struct):
    """The host."""

    id: HostId
    name: str


def created(
    view: View, own: Own, request: CreateInstance, here: Here, *, now: float, ident: InstanceId
) -> Instance:
    """Raises InvalidInput, AlreadyExists for a name that a container here has, whoever made that, Unsupported
    and Unavailable for networks."""
    problems = [
        *validate_container(request.spec, "spec"),
        *validate_placement(request.placement, request.spec, "placement"),
        *(validate_name("container", request.name, "name") if request.name else ()),
    ]
    if problems:
        raise InvalidInput.of("invalid container", tuple(problems))
    _check_place(request, here)
    known = wishes(view, own)
    taken = {instance.name: instance.id for instance in known.values()}
    name = request.name or invent(ident, taken)
    check_free(view, own, name)
    spec = _sharing(view, own, request.spec)
    return Instance(
        id=ident,
        name=name,
        spec=spec,
        placement=request.placement,
        host=here.id,
        pinned=True,
        desired=Desired.RUNNING if request.start else Desired.CREATED,
        attachments=_attachments(view, spec),
        created_at=now,
        reason=f"made on {here.name}'s own socket",
        revision=1,
    )


def revised(before: Instance, decided: Instance) -> Instance:
    """With the next revision, where it is another."""
    return decided if decided == before else replace(decided, revision=before.revision + 1)


def check_free(view: View, own: Own, name: str) -> None:
    """Raises AlreadyExists."""
    for instance in wishes(view, own).values():
        if instance.name == name:
            whose = "" if instance.id in own else ", which the fleet made"
            raise AlreadyExists(f"the name {name} is in use by container {short(instance.id)}{whose}")


def found(view: View, own: Own, ref: str) -> Instance:
    """By id, name or unique prefix, whoever made it. Raises NotFound, Ambiguous."""
    known = wishes(view, own)
    return known[InstanceId(resolve("container", ref, ((i, known[i].name) for i in known)))]


def mine(view: View, own: Own, ref: str, verb: str) -> Instance:
    """As `found`. Raises WrongState for a container that is the fleet's to change."""
    instance = found(view, own, ref)
    if instance.id not in own:
        where = f"service {instance.service_name}" if instance.service_name else "the fleet"
        raise WrongState(
            f"can't {verb} {instance.name} here: it belongs to {where}",
            hint="Do that at the fleet's endpoint; this socket changes what was made on it",
        )
    return instance


def _check_place(request: CreateInstance, here: Here) -> None:
    if request.host and request.host not in (here.name, here.id):
        raise InvalidInput(
            f"this is the socket of host {here.name}, and the container is to be on {request.host[:80]}",
            hint=ELSEWHERE,
        )
    if request.placement.constraints:
        raise InvalidInput(
            f"constraints choose among hosts, and this is the socket of host {here.name} alone",
            hint=ELSEWHERE,
        )


def _sharing(view: View, own: Own, spec: ContainerSpec) -> ContainerSpec:
    """By the id of the container whose network it shares: a name may be another's tomorrow."""
    networks = (
        replace(wish, network=f"{CONTAINER}{found(view, own, wish.network.removeprefix(CONTAINER)).id}")
        if wish.network.startswith(CONTAINER)
        else wish
        for wish in spec.networks
    )
    return replace(spec, networks=tuple(networks))


def _attachments(view: View, spec: ContainerSpec) -> tuple[ResolvedAttachment, ...]:
    asked = spec.networks or (Attachment(network=PREDEFINED_BRIDGE),)
    if any(is_mode(wish.network) for wish in asked):
        if len(asked) > 1:
            raise InvalidInput("network mode host, none or container:NAME excludes other networks")
        return ()
    for wish in asked:
        if wish.network != PREDEFINED_BRIDGE:
            raise Unsupported(
                f"network {wish.network[:80]}: a container that is made on a host's own socket can be on "
                "bridge, host, none, or share another's",
                hint=f"Networks are the fleet's. {ELSEWHERE}",
            )
    network = view.networks.get(NetworkId(PREDEFINED_BRIDGE))
    if network is None:
        raise Unavailable(
            f"network {PREDEFINED_BRIDGE} is not here yet: this host has not heard from its controller",
            hint="--network host or none work without",
        )
    return (_on_bridge(network, asked[0]),)


def _on_bridge(network: NetworkView, wish: Attachment) -> ResolvedAttachment:
    if wish.aliases:
        raise InvalidInput(
            f"network {PREDEFINED_BRIDGE} has no names, so {wish.aliases[0]} would never be found",
            hint=f"Use a network of the fleet. {ELSEWHERE}",
        )
    for text, version in ((wish.ipv4, 4), (wish.ipv6, 6)):
        for first, last in parse(text, version) if text else ():
            if first != last:
                raise InvalidInput(f"address {text[:80]}: one address can be asked for here, no range")
            check_address(network.spec, str(first))
    fields = {name: getattr(wish, name) for name in wish.__struct_fields__ if name != "network"}
    return ResolvedAttachment(network=network.id, **fields)
