"""Constraints on hosts: `node.labels.zone==a`, `node.hostname!=x`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from model.errors import InvalidInput
from model.records import Host

_CONSTRAINT = re.compile(r"\s*(node\.[A-Za-z0-9_./-]+)\s*(==|!=)\s*(.*?)\s*\Z")
_FIELDS = frozenset({"node.id", "node.hostname", "node.name", "node.platform.arch", "node.platform.os"})
LABELS = "node.labels."


class Constraint(NamedTuple):
    """`node.labels.zone==a`, taken apart."""

    field: str
    equal: bool
    value: str


@lru_cache(maxsize=1024)
def parse_constraint(text: str) -> Constraint:
    """Raises InvalidInput naming what is wrong with it."""
    match = _CONSTRAINT.match(text)
    if not match:
        raise InvalidInput(f"invalid constraint {text[:80]!r}", hint="Write for example node.labels.zone==a")
    field = match[1]
    if field not in _FIELDS and not (field.startswith(LABELS) and len(field) > len(LABELS)):
        raise InvalidInput(
            f"unknown field {field!r} in constraint {text[:80]!r}",
            hint="Use node.id, node.hostname, node.platform.arch, node.platform.os or node.labels.NAME",
        )
    return Constraint(field, match[2] == "==", match[3])


def matches(constraint: Constraint, host: Host) -> bool:
    facts = host.facts
    if constraint.field.startswith(LABELS):
        name = constraint.field.removeprefix(LABELS)
        have = host.spec.labels.get(name, facts.labels.get(name, ""))
        return (have == constraint.value) is constraint.equal
    fields: Mapping[str, tuple[str, ...]] = {
        "node.id": (host.id,),
        "node.hostname": (facts.hostname, host.spec.name),
        "node.name": (host.spec.name,),
        "node.platform.arch": (facts.platform.arch,),
        "node.platform.os": (facts.platform.os,),
    }
    return (constraint.value in fields[constraint.field]) is constraint.equal
