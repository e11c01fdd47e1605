"""Volumes of one name on several hosts are one volume to Docker's clients: this joins them. Pure.

Each host has its own data under a name; a container sees that of the host where it runs. `Status` says which
hosts have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from api.docker.parameters import Filters, check_filters, one_truth
from api.docker.times import moment
from api.filters import label_fits
from model.api import VolumeInfo
from model.spec import Struct

ANONYMOUS = "com.docker.volume.anonymous"
"""The label by which Docker's clients know a volume that was given no name."""
DRIVER = "local"


class Volume(Struct):
    """All of one name; `parts` in the order of their hosts."""

    name: str
    parts: tuple[VolumeInfo, ...]

    @property
    def labels(self) -> dict[str, str]:
        marks = {ANONYMOUS: ""} if self.anonymous else {}
        return {k: v for part in self.parts for k, v in part.volume.labels.items()} | marks

    @property
    def anonymous(self) -> bool:
        return any(part.volume.anonymous for part in self.parts)

    @property
    def used_by(self) -> tuple[str, ...]:
        return tuple(user for part in self.parts for user in part.used_by)


def joined(infos: Iterable[VolumeInfo]) -> list[Volume]:
    """By name."""
    found: dict[str, list[VolumeInfo]] = {}
    for info in infos:
        found.setdefault(info.volume.name, []).append(info)
    return [Volume(name=name, parts=tuple(found[name])) for name in sorted(found)]


def described(volume: Volume) -> dict[str, Any]:
    first = volume.parts[0]
    return {
        "CreatedAt": moment(min(part.volume.created_at for part in volume.parts)),
        "Driver": DRIVER,
        "Labels": volume.labels or None,
        "Mountpoint": first.mountpoint,
        "Name": volume.name,
        "Options": None,
        "Scope": "local",
        "Status": {"nodes": [part.host for part in volume.parts]},
    }


FILTERS: Mapping[str, Callable[[Volume, str], bool]] = {
    "name": lambda v, wish: wish in v.name,
    "label": lambda v, wish: label_fits(v.labels, wish),
    "label!": lambda v, wish: not label_fits(v.labels, wish),
    "driver": lambda v, wish: wish == DRIVER,
    "node": lambda v, wish: any(wish == part.host for part in v.parts),
}
_ALL_MUST = ("label", "label!")


def chosen(volumes: Iterable[Volume], filters: Filters) -> list[Volume]:
    """Those to list. Values of one filter are alternatives, but for labels. Raises InvalidInput."""
    check_filters(filters, ("name", "label", "driver", "node", "dangling"))
    kept = [v for v in volumes if all(_holds(v, key, values) for key, values in filters.items())]
    if not filters.get("dangling"):
        return kept
    loose = one_truth(filters, "dangling")
    return [v for v in kept if (not v.used_by) == loose]


def _holds(volume: Volume, key: str, values: Sequence[str]) -> bool:
    if key not in FILTERS or not values:
        return True
    return (all if key in _ALL_MUST else any)(FILTERS[key](volume, value) for value in values)


def prunable(volumes: Iterable[Volume], filters: Filters, *, named: bool) -> list[Volume]:
    """Those that nobody uses: without a name, or with `named` (or the filter `all`) all. Raises
    InvalidInput."""
    check_filters(filters, ("label", "label!", "all"))
    everything = named or one_truth(filters, "all")
    return [
        v
        for v in volumes
        if not v.used_by
        and (everything or v.anonymous)
        and all(_holds(v, key, values) for key, values in filters.items())
    ]
