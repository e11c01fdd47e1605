"""`GET /containers/json`, `GET /containers/{id}/json`, and the choice of containers to prune."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import field

from aio.together import together
from api.docker.containers import states
from api.docker.containers.inspection import Around, inspect, listed
from api.docker.containers.sizes import shown, written
from api.docker.hosts import image_of, instance_path, told_by_host
from api.docker.parameters import Filters, check_filters
from api.docker.ports import DockerPort
from api.docker.route import Call
from api.filters import image_fits, label_fits
from model.api import InstanceInfo
from model.errors import InvalidInput, NotFound
from model.health import HealthLog
from model.ids import resolve
from model.image import ImageRecord
from model.quantity import parse_moment
from model.spec import Struct


class List(Struct):
    all: bool = False
    limit: int = 0
    size: bool = False
    filters: Filters = field(default_factory=dict)
    since: str = ""
    before: str = ""


class Inspect(Struct):
    size: bool = False


Fits = Callable[[InstanceInfo, str], bool]
FILTERS: Mapping[str, Fits] = {
    "id": lambda i, v: i.instance.id.startswith(v),
    "name": lambda i, v: _name_fits(i.instance.name, v),
    "label": lambda i, v: label_fits({**i.instance.spec.labels, "flota.node": i.host_name}, v),
    "label!": lambda i, v: not label_fits(i.instance.spec.labels, v),
    "status": lambda i, v: states.state(i) == v,
    "health": lambda i, v: (i.status.health or "none") == v,
    "node": lambda i, v: v in (i.host_name, i.instance.host),
    "ancestor": lambda i, v: image_fits(i.instance.spec.image, v) or _id_fits(i.status.image_id, v),
    "network": lambda i, v: (
        any(v in (e.network_name, e.network) for e in i.status.endpoints)
        or any(v == a.network for a in i.instance.attachments)
    ),
    "volume": lambda i, v: (
        any(v in pair for pair in i.status.volumes)
        or any(v in (m.source, m.target) for m in i.instance.spec.mounts)
    ),
    "exited": lambda i, v: states.state(i) == "exited" and str(states.exit_code(i)) == v,
    "publish": lambda i, v: any(_port_fits(p.published, p.protocol, v) for p in i.status.ports),
    "expose": lambda i, v: (
        any(_port_fits(p.target, p.protocol, v) for p in i.instance.spec.ports)
        or any(v in (text, f"{text}/tcp") for text in i.instance.spec.expose)
    ),
    "is-task": lambda i, v: (i.instance.service is not None) == (v.lower() in ("1", "true")),
    "isolation": lambda i, v: v in ("", "default"),
}
_ALL_MUST = ("label", "label!")
KNOWN = (*FILTERS, "since", "before")


def _name_fits(name: str, wish: str) -> bool:
    """A regular expression, found anywhere in the name with or without its slash, as in Docker."""
    try:
        pattern = re.compile(wish)
    except re.error:
        return wish in name
    return bool(pattern.search(name) or pattern.search(f"/{name}"))


def _id_fits(image: str, wish: str) -> bool:
    return bool(wish) and image.removeprefix("sha256:").startswith(wish.removeprefix("sha256:"))


def _port_fits(number: int, protocol: str, wish: str) -> bool:
    """`80`, `80/udp`, `8000-8010/tcp`."""
    ports, slash, kind = wish.partition("/")
    first, _, last = ports.partition("-")
    if not first.isdecimal() or (last and not last.isdecimal()):
        raise InvalidInput(f"invalid filter: {wish[:40]!r} is no port")
    return int(first) <= number <= int(last or first) and (not slash or kind == protocol)


def chosen(
    infos: Sequence[InstanceInfo], filters: Filters, *, all_: bool = True, limit: int = 0
) -> list[InstanceInfo]:
    """Those to show, newest first as they come. Raises InvalidInput."""
    check_filters(filters, KNOWN)
    for value in filters.get("status", ()):
        if value not in states.STATES:
            raise InvalidInput(f"invalid filter 'status={value[:40]}'")
    everything = all_ or limit > 0 or any(key in filters for key in ("status", "exited", "since", "before"))
    kept = _between(infos, filters)
    kept = [i for i in kept if everything or states.state(i) in ("running", "paused", "restarting")]
    kept = [
        i for i in kept if all(_hold(i, key, values) for key, values in filters.items() if key in FILTERS)
    ]
    return kept[:limit] if limit > 0 else kept


def _hold(info: InstanceInfo, key: str, values: Sequence[str]) -> bool:
    if not values:
        return True
    return (all if key in _ALL_MUST else any)(FILTERS[key](info, value) for value in values)


def _between(infos: Sequence[InstanceInfo], filters: Filters) -> list[InstanceInfo]:
    """Made after the one that `since` names and before that of `before`."""
    kept = list(infos)
    names = [(i.instance.id, i.instance.name) for i in infos]
    for key, later in (("since", True), ("before", False)):
        for ref in filters.get(key, ()):
            pivot = next(i for i in infos if i.instance.id == resolve("container", ref, names))
            at = pivot.instance.created_at
            kept = [i for i in kept if (i.instance.created_at > at if later else i.instance.created_at < at)]
    return kept


async def list_(call: Call) -> list[dict[str, Any]]:
    query = call.query_as(List)
    filters = dict(query.filters)
    if query.limit < -1:
        raise InvalidInput(f"limit={query.limit} is out of range")
    for key, value in (("since", query.since), ("before", query.before)):
        if value:
            filters[key] = (value,)
    if node := call.node():
        filters["node"] = (node,)
    infos = chosen(call.port.list_instances(), filters, all_=query.all, limit=query.limit)
    images = await images_of(call, infos)
    sizes = await written(call.port, infos) if query.size else {}
    names, prefixes = networks_of(call.port)
    now = time.time()
    return [
        listed(
            info,
            Around(image=images[info.status.image_id].config, networks=names, prefixes=prefixes),
            now,
        )
        | (shown(images[info.status.image_id], sizes.get(info.instance.id, 0)) if query.size else {})
        for info in infos
    ]


async def images_of(call: Call, infos: Sequence[InstanceInfo]) -> dict[str, ImageRecord]:
    """One question per image that is not known yet."""
    by_id = {info.status.image_id: info for info in infos}
    found = await together(image_of(call.port, call.state, info) for info in by_id.values())
    return dict(zip(by_id, found, strict=True))


def networks_of(port: DockerPort) -> tuple[dict[str, str], dict[str, int]]:
    """Names, and lengths of IPv4 prefixes, by id."""
    networks = [info.network for info in port.list_networks()]
    prefixes: dict[str, int] = {
        network.id: int(subnet.cidr.partition("/")[2] or 0)
        for network in networks
        for subnet in network.spec.subnets
        if ":" not in subnet.cidr
    }
    names: dict[str, str] = {network.id: network.spec.name for network in networks}
    return names, prefixes


async def inspect_(call: Call) -> dict[str, Any]:
    info = call.port.get_instance(call.ref())
    names, prefixes = networks_of(call.port)
    image = await image_of(call.port, call.state, info)
    node = None
    health: HealthLog | None = None
    if info.instance.host is not None:
        try:
            node = call.port.get_host(info.instance.host)
        except NotFound:  # removed from the fleet, its containers not yet
            node = None
    if info.status.health:
        path = instance_path(info.instance.id, "health")
        health = await told_by_host(call.port, info, path, HealthLog)
    around = Around(
        image=image.config,
        node=node,
        networks=names,
        prefixes=prefixes,
        health=health,
        execs=tuple(call.state.execs.of(info.instance.id)),
    )
    made = inspect(info, around)
    if call.query_as(Inspect).size:
        made |= shown(image, (await written(call.port, [info])).get(info.instance.id, 0))
    return made


def prunable(infos: Sequence[InstanceInfo], filters: Filters, now: float) -> list[InstanceInfo]:
    """Those that don't run, made before `until`. Raises InvalidInput."""
    check_filters(filters, ("until", "label", "label!"))
    kept = [
        i
        for i in infos
        if i.instance.service is None
        and states.state(i) in ("created", "exited", "dead")
        and not i.status.phase.live
    ]
    for value in filters.get("until", ()):
        at = parse_moment(value, now)
        kept = [i for i in kept if i.instance.created_at < at]
    labels = {key: values for key, values in filters.items() if key in _ALL_MUST}
    return [i for i in kept if all(_hold(i, key, values) for key, values in labels.items())]
