"""Who uses this host's volumes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.record import Local
from agent.volumes import OWNER
from model.ids import InstanceId
from model.records import Instance
from model.status import VolumeReport


def users_of(
    volumes: Iterable[VolumeReport],
    records: Mapping[InstanceId, Local],
    told: Mapping[InstanceId, Instance],
) -> Mapping[str, Mapping[str, str]]:
    """Volume → those who hold it or are about to: instance id → name."""
    users: dict[str, dict[str, str]] = {}
    owned = {v.name: owner for v in volumes if (owner := v.labels.get(OWNER, ""))}
    for ident, record in records.items():
        want = told.get(ident)
        mounts = want.spec.mounts if want is not None else ()
        named = {m.source for m in mounts if m.type == "volume" and m.source}
        own = {name for name, owner in owned.items() if owner == ident}
        for volume in {name for name, _ in record.volumes} | named | own:
            users.setdefault(volume, {})[ident] = want.name if want is not None else ident
    return users
