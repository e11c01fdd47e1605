"""Which fixed addresses a service may ask for: one per replica, each held by one instance at a time. Pure.

In which subnets they lie is asked where the network is known; these rules need the spec alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec.structs import replace

from model.addressranges import count, parse
from model.errors import InvalidInput, Problem
from model.spec import Attachment, ContainerSpec, Replicated, ServiceSpec

Field = Literal["ipv4", "ipv6"]
FIELDS: tuple[tuple[Field, int], ...] = (("ipv4", 4), ("ipv6", 6))


def without_addresses(spec: ContainerSpec) -> ContainerSpec:
    """For the rules that hold whatever addresses are asked for."""
    bare = (replace(a, ipv4="", ipv6="", keep_address=False) for a in spec.networks)
    return replace(spec, networks=tuple(bare))


def is_fixed(spec: ContainerSpec) -> bool:
    return any(a.ipv4 or a.ipv6 or a.keep_address for a in spec.networks)


def service_addresses(spec: ServiceSpec, path: str) -> Iterator[Problem]:
    """Everything wrong with the addresses that a service's networks name."""
    at = f"{path}.container.networks"
    for index, attachment in enumerate(spec.container.networks):
        yield from _attachment(spec, attachment, f"{at}[{index}]")
    if not is_fixed(spec.container):
        return
    for field, policy in (("update", spec.update), ("rollback", spec.rollback)):
        if policy.order == "start-first":
            message = "start-first needs addresses that two can't have at once: use stop-first"
            yield Problem(path=f"{path}.{field}.order", message=message)


def _attachment(spec: ServiceSpec, attachment: Attachment, at: str) -> Iterator[Problem]:
    if attachment.mac:
        yield Problem(path=f"{at}.mac", message="instances of a service can't have a fixed MAC address")
    for field, version in FIELDS:
        text = attachment.ipv4 if field == "ipv4" else attachment.ipv6
        if not text:
            continue
        if attachment.keep_address:
            yield Problem(path=f"{at}.{field}", message="name addresses, or keep those chosen: not both")
        elif not isinstance(spec.mode, Replicated):
            message = "a global service has no numbered replicas: only ip=keep gives its instances addresses"
            yield Problem(path=f"{at}.{field}", message=message)
        else:
            yield from _enough(text, version, spec.mode.replicas, f"{at}.{field}")


def _enough(text: str, version: int, replicas: int, at: str) -> Iterator[Problem]:
    try:
        found = count(parse(text, version))
    except InvalidInput as error:
        yield Problem(path=at, message=error.message)
        return
    if found < replicas:
        noun = "address" if found == 1 else "addresses"
        yield Problem(path=at, message=f"{replicas} replicas need one each, {found} {noun} named")
