"""`DELETE /images/{name}` and `POST /images/prune`: on every host, told as one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from msgspec import field

from api.docker.containers import states
from api.docker.errors import Refusal
from api.docker.hosts import find_image
from api.docker.images.listing import native_filters, platform_of
from api.docker.images.names import full, short
from api.docker.parameters import Filters, check_filters, one_truth
from api.docker.route import Call
from api.fanout import Outcome, each, hosts_for
from api.hostcall import QueryValue, target
from model.api import ImageInfo, ImageRemoved, InstanceInfo
from model.errors import InUse, InvalidInput, NotFound
from model.registries import familiar
from model.spec import Struct


class Remove(Struct):
    force: bool = False
    noprune: bool = False
    platforms: tuple[str, ...] = ()


class Prune(Struct):
    filters: Filters = field(default_factory=dict)


async def remove(call: Call) -> list[dict[str, str]]:
    query = call.query_as(Remove)
    if len(query.platforms) > 1:
        raise InvalidInput("platforms: one at a time, please")
    platform = platform_of(query.platforms[0]) if query.platforms else ""
    found = await find_image(call.port, call.ref(), platform, call.node())
    infos = [info for _, info in found]
    refused = conflict(call.ref(), infos, call.port.list_instances(), force=query.force)
    if refused is not None:
        raise refused
    wish: dict[str, QueryValue] = {"force": query.force, "platform": platform}
    path = target(f"/v1/images/{quote(call.ref(), safe='')}", wish)
    outcome = await each(call.port, hosts_for(call.port, call.node()), "DELETE", path, ImageRemoved)
    for name, error in outcome.errors:
        if isinstance(error, InUse):
            raise Refusal(
                409, f"conflict: unable to delete {call.ref()} (cannot be forced) - {error.message}"
            )
        if not isinstance(error, NotFound):
            raise type(error)(f"{name}: {error.message}", hint=error.hint)
    return lines(_removed(outcome))


def conflict(
    ref: str, infos: Sequence[ImageInfo], containers: Iterable[InstanceInfo], *, force: bool
) -> Refusal | None:
    """Why it may not go, in Docker's words: by its id while it has several names, or while a container is
    made of it and this is its last name. A container's image stays whatever is forced. Pure."""
    names = {name for info in infos for name in info.image.names}
    known = {full(name) for name in names}.union(d for info in infos for d in info.image.digests)
    by_name = full(ref) in known
    if by_name and len(names) > 1:
        return None
    ident = infos[0].image.id
    if not by_name and len(names) > 1 and not force:
        return Refusal(
            409,
            f"conflict: unable to delete {short(ident)} (must be forced) - image is referenced in multiple "
            "repositories",
        )
    users = [one for one in containers if one.status.image_id in {info.image.id for info in infos}]
    if not users:
        return None
    user = next((one for one in users if one.status.phase.live), users[0])
    if by_name and not force:
        return Refusal(
            409,
            f'conflict: unable to remove repository reference "{familiar(ref)}" (must force) - container '
            f"{short(user.instance.id)} is using its referenced image {short(ident)}",
        )
    kind = "running" if states.state(user) in ("running", "paused") else "stopped"
    return Refusal(
        409,
        f"conflict: unable to delete {short(ident)} (cannot be forced) - image is being used by {kind} "
        f"container {short(user.instance.id)}",
    )


def lines(removed: Iterable[ImageRemoved]) -> list[dict[str, str]]:
    """Each name and image once, though several hosts had it."""
    every = list(removed)
    untagged = dict.fromkeys(name for one in every for name in one.untagged)
    deleted = dict.fromkeys(ident for one in every for ident in one.deleted)
    return [
        *({"Untagged": familiar(name)} for name in untagged),
        *({"Deleted": ident} for ident in deleted),
    ]


async def prune(call: Call) -> dict[str, Any]:
    filters = dict(check_filters(call.query_as(Prune).filters, ("dangling", "label", "label!", "until")))
    dangling = one_truth(filters, "dangling", True)
    filters.pop("dangling", None)
    wish: dict[str, QueryValue] = {
        "all": not dangling,
        "filter": tuple(native_filters(filters, time.time())),
    }
    path = target("/v1/images/prune", wish)
    outcome = await each(call.port, hosts_for(call.port, call.node()), "POST", path, ImageRemoved)
    removed = _removed(outcome)
    return {
        "ImagesDeleted": lines(removed) or None,
        "SpaceReclaimed": sum(one.freed for one in removed),
    }


def _removed(outcome: Outcome) -> list[ImageRemoved]:
    return [removed for _, removed in outcome.or_raise()]
