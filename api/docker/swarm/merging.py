"""A spec as Docker's client sends it back, and what Docker has no words for. Pure.

A client reads a service, changes a few fields and sends all of them. What flota's own commands said beyond
Docker's words (a balance, an HTTP probe, who may reach a port …) must outlive that. So three are merged: the
stored spec, what its description means in Docker's words (`was`), and what is wanted in the same words: where
the last two agree, the stored one stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from api.docker.hosts import tagged
from model.spec import ServiceSpec, Struct

T = TypeVar("T", bound=Struct)


def merged(base: ServiceSpec, was: ServiceSpec, wanted: ServiceSpec) -> ServiceSpec:
    if wanted.container.image == tagged(was.container.image):
        # Docker's client writes out the tag that was meant: that is no other image
        container = replace(wanted.container, image=was.container.image)
        wanted = replace(wanted, container=container)
    return _struct(base, was, wanted)


def _struct(base: T, was: T, wanted: T) -> T:
    changes = {
        name: _value(getattr(base, name), getattr(was, name), getattr(wanted, name))
        for name in base.__struct_fields__
    }
    return replace(base, **changes)


def _value(base: Any, was: Any, wanted: Any) -> Any:
    if was == wanted:
        return base
    if isinstance(wanted, Struct) and type(base) is type(was) is type(wanted):
        return _struct(base, was, wanted)
    if isinstance(wanted, Mapping) and isinstance(base, Mapping):
        return _mapping(base, was, wanted)
    if isinstance(wanted, tuple) and isinstance(base, tuple) and isinstance(was, tuple):
        return _items(base, was, wanted)
    return wanted


def _mapping(base: Mapping[str, Any], was: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in base.items() if key in wanted or key not in was}
    return kept | {key: value for key, value in wanted.items() if key not in was or was[key] != value}


def _items(base: Sequence[Any], was: Sequence[Any], wanted: Sequence[Any]) -> tuple[Any, ...]:
    """`was` describes `base`, item by item. One that is wanted as it was is what it is; one of which another
    word is said (of the same network, port or mount) keeps its others."""
    if len(base) != len(was):
        return tuple(wanted)
    made = []
    for item in wanted:
        at = next((i for i, old in enumerate(was) if old == item), None)
        if at is None and isinstance(item, Struct):
            at = next((i for i, old in enumerate(was) if _about(old) == _about(item)), None)
            made.append(item if at is None else _struct(base[at], was[at], item))
        else:
            made.append(item if at is None else base[at])
    return tuple(made)


_KEYS = ("network", "source", "target", "protocol", "published", "name")


def _about(item: Struct) -> tuple[Any, ...]:
    """What tells items of one list apart."""
    return (type(item), *(getattr(item, key, None) for key in _KEYS))
