"""From a new View to what changes on this host: which instances are new, changed, or no longer ours. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model.ids import InstanceId
from model.records import Instance
from model.spec import Struct


class Assignment(Struct):
    """Wishes to hand to workers. `gone` are known here and in no View: they are to be removed."""

    changed: tuple[Instance, ...] = ()
    gone: tuple[InstanceId, ...] = ()


def assign(
    known: Iterable[InstanceId], told: Mapping[InstanceId, Instance], wanted: Mapping[InstanceId, Instance]
) -> Assignment:
    """`known` have records here, `told` is the wish that each worker has, `wanted` is the View's."""
    changed = tuple(wish for ident, wish in sorted(wanted.items()) if told.get(ident) != wish)
    gone = tuple(sorted(ident for ident in {*known, *told} if ident not in wanted))
    return Assignment(changed=changed, gone=gone)
