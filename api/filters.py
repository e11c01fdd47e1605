"""Filters of lists, `key=value`: values of one key are alternatives, but for labels, which must all hold, as
must different keys. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from model.api import InstanceInfo, NetworkInfo, VolumeInfo
from model.errors import InvalidInput
from model.events import Event
from model.quantity import BOOLS, parse_bool
from model.records import Desired, Network
from model.status import Phase

T = TypeVar("T")
Filters = Mapping[str, Sequence[str]]
_GONE = (Desired.CREATED, Desired.STOPPED, Desired.REMOVED)
_STATUS: Mapping[str, str] = {"dead": "failed", "stopped": "exited"}
"""Docker's words for states that we name otherwise."""


def parse_filters(texts: Sequence[str], known: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`("label=a", "label=b")` → {"label": ("a", "b")}. Raises InvalidInput for a key that is not `known`
    and a `dangling` that is neither true nor false."""
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"invalid filter {text[:80]!r}", hint="Write key=value")
        if key not in known:
            raise InvalidInput(f"unknown filter {key[:40]!r}", hint=f"Known are {', '.join(known)}")
        if key == "dangling":
            parse_bool(value, "filter dangling")
        found[key] = (*found.get(key, ()), value)
    return found


def hold(table: Mapping[str, Callable[[T, str], bool]], item: T, filters: Filters) -> bool:
    """Whether parsed filters let an item through; `table` says what fits."""
    return all(
        (all if key == "label" else any)(table[key](item, value) for value in values)
        for key, values in filters.items()
    )


def label_fits(labels: Mapping[str, str], wish: str) -> bool:
    """`key` or `key=value`."""
    key, equals, value = wish.partition("=")
    return key in labels and (not equals or labels[key] == value)


def image_fits(image: str, wish: str) -> bool:
    """Same repository, and same tag where one is wished for: `busybox` fits `docker.io/library/busybox:1`."""
    if image == wish or image.endswith(f"/{wish}"):
        return True
    bare = image.partition("@")[0]
    repository = bare.rpartition(":")[0] if ":" in bare.rpartition("/")[2] else bare
    return repository == wish or repository.endswith(f"/{wish}")


INSTANCE_FILTERS: Mapping[str, Callable[[InstanceInfo, str], bool]] = {
    "id": lambda i, v: i.instance.id.startswith(v),
    "name": lambda i, v: v.removeprefix("/") in i.instance.name,
    "label": lambda i, v: label_fits(i.instance.spec.labels, v),
    "status": lambda i, v: ("paused" if i.status.paused else i.status.phase) == _STATUS.get(v, v),
    "health": lambda i, v: (i.status.health or "none") == v,
    "node": lambda i, v: v in (i.host_name, i.instance.host),
    "service": lambda i, v: v in (i.instance.service_name, i.instance.service),
    "ancestor": lambda i, v: image_fits(i.instance.spec.image, v),
    "network": lambda i, v: any(v in (e.network_name, e.network) for e in i.status.endpoints),
    "volume": lambda i, v: any(v in pair for pair in i.status.volumes),
    "exited": lambda i, v: i.status.phase is Phase.EXITED and str(i.status.exit_code) == v,
    "publish": lambda i, v: any(
        v in (str(p.published), f"{p.published}/{p.protocol}") for p in i.status.ports
    ),
}


def is_shown(info: InstanceInfo) -> bool:
    """In `ps` without `-a`: what runs, and what is on its way there."""
    phase = info.status.phase
    return phase.live or (not phase.ended and info.instance.desired not in _GONE)


def filter_instances(
    infos: Sequence[InstanceInfo], texts: Sequence[str], *, all_: bool, limit: int = 0
) -> list[InstanceInfo]:
    """The ones to list, in their order. A filter on status or exit shows ended ones too, as in Docker."""
    filters = parse_filters(texts, tuple(INSTANCE_FILTERS))
    everything = all_ or limit or "status" in filters or "exited" in filters
    kept = [
        info for info in infos if (everything or is_shown(info)) and hold(INSTANCE_FILTERS, info, filters)
    ]
    return kept[:limit] if limit else kept


EVENT_FILTERS: Mapping[str, Callable[[Event, str], bool]] = {
    "type": lambda e, v: e.type == v,
    "event": lambda e, v: v in (e.action, e.action.partition(":")[0]),
    "action": lambda e, v: v in (e.action, e.action.partition(":")[0]),
    "node": lambda e, v: v == e.host or (e.type == "node" and v in (e.id, e.name)),
    "container": lambda e, v: (
        (e.type == "container" and (e.name == v or e.id.startswith(v)))
        or v in (e.attributes.get("container"), e.attributes.get("containerName"))
    ),
    "network": lambda e, v: e.type == "network" and (e.name == v or e.id.startswith(v)),
    "service": lambda e, v: v in (e.attributes.get("service"), e.name if e.type == "service" else None),
    "label": lambda e, v: label_fits(e.attributes, v),
}


def event_fits(event: Event, filters: Filters) -> bool:
    """`filters` are parsed ones, of EVENT_FILTERS."""
    return hold(EVENT_FILTERS, event, filters)


VOLUME_FILTERS: Mapping[str, Callable[[VolumeInfo, str], bool]] = {
    "name": lambda i, v: v in i.volume.name,
    "label": lambda i, v: label_fits(i.volume.labels, v),
    "dangling": lambda i, v: (not i.used_by) == BOOLS[v],
}


NETWORK_FILTERS: Mapping[str, Callable[[NetworkInfo, str], bool]] = {
    "id": lambda i, v: i.network.id.startswith(v),
    "name": lambda i, v: v in i.network.spec.name,
    "driver": lambda i, v: i.network.spec.driver == v,
    "label": lambda i, v: label_fits(i.network.spec.labels, v),
    "type": lambda i, v: v == ("builtin" if i.network.predefined else "custom"),
    "dangling": lambda i, v: (not i.endpoints) == BOOLS[v],
}


def filter_networks(infos: Sequence[NetworkInfo], texts: Sequence[str]) -> list[NetworkInfo]:
    filters = parse_filters(texts, tuple(NETWORK_FILTERS))
    return [i for i in infos if hold(NETWORK_FILTERS, i, filters)]


def network_chooser(texts: Sequence[str]) -> Callable[[Network], bool]:
    """What `network prune` may take: `until=SECONDS` (made before then, unix time), `label=…`, `label!=…`.
    All must hold, as in Docker."""
    wanted: list[Callable[[Network], bool]] = []
    for key, values in parse_filters(texts, ("until", "label", "label!")).items():
        for value in values:
            if key == "until":
                wanted.append(partial(_made_before, _seconds(value)))
            else:
                wanted.append(partial(_labelled, value, key == "label"))
    return lambda network: all(fits(network) for fits in wanted)


def _made_before(at: float, network: Network) -> bool:
    return network.created_at < at


def _labelled(wish: str, has: bool, network: Network) -> bool:
    return label_fits(network.spec.labels, wish) is has


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"filter until={text[:40]}: not a time in seconds") from None


def filter_volumes(infos: Sequence[VolumeInfo], texts: Sequence[str]) -> list[VolumeInfo]:
    filters = parse_filters(texts, tuple(VOLUME_FILTERS))
    return [i for i in infos if hold(VOLUME_FILTERS, i, filters)]
