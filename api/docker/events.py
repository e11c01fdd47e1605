"""`GET /events`: what happens in the fleet, in Docker's shape and with its filters."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, cast

from aiohttp import web
from msgspec import field

from api.docker.parameters import Filters, Moment, check_filters
from api.docker.route import Call
from api.docker.times import nanoseconds
from api.filters import image_fits, label_fits
from api.streaming import begin
from model.codec import encode_json
from model.events import Event
from model.spec import Struct

TYPES = ("container", "image", "network", "node", "service", "volume")
"""Of ours, those that Docker has."""


class Events(Struct):
    since: Moment | None = None
    until: Moment | None = None
    filters: Filters = field(default_factory=dict)


Said = Mapping[str, Any]
_FILTERS: Mapping[str, Callable[[Said, str], bool]] = {
    "type": lambda e, v: e["Type"] == v,
    "event": lambda e, v: v in (e["Action"], e["Action"].partition(":")[0]),
    "scope": lambda e, v: e["scope"] == v,
    "label": lambda e, v: label_fits(e["Actor"]["Attributes"], v),
    "node": lambda e, v: e["Actor"]["Attributes"].get("node") == v or _is(e, "node", v),
    "container": lambda e, v: _is(e, "container", v) or _about(e, "container", v),
    "image": lambda e, v: _is(e, "image", v) or image_fits(str(e["Actor"]["Attributes"].get("image", "")), v),
    "network": lambda e, v: _is(e, "network", v),
    "volume": lambda e, v: _is(e, "volume", v),
    "service": lambda e, v: _is(e, "service", v),
    "daemon": lambda e, v: False,
    "plugin": lambda e, v: False,
    "secret": lambda e, v: False,
    "config": lambda e, v: False,
}


def _is(said: Said, type_: str, wish: str) -> bool:
    actor = said["Actor"]
    named = actor["Attributes"].get("name") == wish.removeprefix("/")
    return said["Type"] == type_ and bool(named or actor["ID"].startswith(wish))


def _about(said: Said, key: str, wish: str) -> bool:
    return bool(wish) and str(said["Actor"]["Attributes"].get(key, "")).startswith(wish)


def fits(said: Said, filters: Filters) -> bool:
    """Values of one filter are alternatives, but for labels, which must all hold."""
    return all(
        not values or (all if key == "label" else any)(_FILTERS[key](said, value) for value in values)
        for key, values in filters.items()
    )


def shown(event: Event) -> dict[str, Any] | None:
    """None for what Docker has no word for. `status`, `id` and `from` are for clients of before 1.22."""
    if event.type not in TYPES:
        return None
    attributes = {**event.attributes, "name": event.attributes.get("name") or event.name}
    if event.host:
        attributes["node"] = event.host
    swarm = event.type in ("service", "node")
    said: dict[str, Any] = {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": attributes},
        "scope": "swarm" if swarm else "local",
        "time": int(event.at),
        "timeNano": nanoseconds(event.at),
    }
    if event.type in ("container", "image"):
        said = {"status": event.action, "id": event.id, **said}
    if event.type == "container":
        said["from"] = event.attributes.get("image", "")
    return said


async def events(call: Call) -> web.StreamResponse:
    query = call.query_as(Events)
    filters = check_filters(query.filters, tuple(_FILTERS))
    since = float(query.since) if query.since else None
    until = float(query.until) if query.until else None
    response = await begin(call.request, "application/json")
    source = cast("AsyncGenerator[Event, None]", call.port.events(since, until))
    async with aclosing(source) as happening:
        try:
            async for event in happening:
                said = shown(event)
                if said is not None and fits(said, filters):
                    await response.write(encode_json(said) + b"\n")
        except ConnectionError:
            return response
    await response.write_eof()
    return response
