"""Lists of manifests that are being put together on this machine: `flota manifest create`, `annotate`. Pure.

Invariant: a list names each manifest once, in the order in which they were first named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from model.errors import AlreadyExists, InvalidInput, NotFound
from model.remoteimages import RemoteImage
from model.spec import Struct

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
"""What an entry is that does not say it; registries take such indexes."""


class Member(Struct):
    """One manifest: `ref` as it was named, `repository` where it lies."""

    ref: str
    repository: str
    digest: str
    size: int
    media_type: str
    platform: Mapping[str, Any] = {}
    annotations: Mapping[str, str] = {}


class ManifestList(Struct):
    ref: str
    members: tuple[Member, ...] = ()


def members_of(ref: str, found: RemoteImage) -> tuple[Member, ...]:
    """What a name means at its registry: an image, or all that an index names. Raises InvalidInput."""
    repository = repository_of(ref)
    document = json.loads(found.document)
    if "manifests" in document:
        return tuple(_listed(ref, repository, entry) for entry in document["manifests"])
    if not found.platforms:
        raise InvalidInput(f"{ref} says for no platform that it is made for it")
    platform = dict(zip(("os", "architecture", "variant"), found.platforms[0].split("/"), strict=False))
    return (
        Member(
            ref=ref,
            repository=repository,
            digest=found.digest,
            size=found.size,
            media_type=found.media_type,
            platform=platform,
        ),
    )


def _listed(ref: str, repository: str, entry: Mapping[str, Any]) -> Member:
    return Member(
        ref=ref,
        repository=repository,
        digest=str(entry["digest"]),
        size=int(entry["size"]),
        media_type=str(entry.get("mediaType") or OCI_MANIFEST),
        platform=entry.get("platform") or {},
        annotations=entry.get("annotations") or {},
    )


def repository_of(ref: str) -> str:
    """Without tag and digest."""
    bare = ref.partition("@")[0]
    return bare.rpartition(":")[0] if ":" in bare.rpartition("/")[2] else bare


def amended(found: ManifestList | None, ref: str, new: Sequence[Member], *, amend: bool) -> ManifestList:
    """The list with more in it. Raises AlreadyExists for one that is there and was not to be amended."""
    if found is not None and not amend:
        raise AlreadyExists(
            f"the manifest list {ref} is being put together already",
            hint="Add to it with --amend, or begin again: flota manifest rm",
        )
    before = found.members if found is not None else ()
    members = {member.digest: member for member in (*before, *new)}
    return ManifestList(ref=ref, members=tuple(members.values()))


def annotated(found: ManifestList, ref: str, wishes: Mapping[str, Any]) -> ManifestList:
    """`wishes` are parts of a platform, as OCI names them; empty ones wish nothing. Raises NotFound."""
    if ref not in {word for member in found.members for word in _words(member)}:
        have = ", ".join(dict.fromkeys(member.ref for member in found.members))
        raise NotFound(f"{found.ref} has no manifest {ref}", hint=f"It has {have}")
    said = {key: value for key, value in wishes.items() if value}
    members = [
        replace(member, platform={**member.platform, **said}) if ref in _words(member) else member
        for member in found.members
    ]
    return replace(found, members=tuple(members))


def _words(member: Member) -> tuple[str, ...]:
    return member.ref, member.digest, f"{member.repository}@{member.digest}"


def document(found: ManifestList) -> str:
    """The index, as it is pushed. Raises InvalidInput."""
    if not found.members:
        raise InvalidInput(f"{found.ref} names no manifest")
    entries = [_entry(member) for member in found.members]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(index, separators=(",", ":"))


def _entry(member: Member) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "mediaType": member.media_type,
        "digest": member.digest,
        "size": member.size,
    }
    if member.platform:
        entry["platform"] = dict(member.platform)
    return {**entry, "annotations": dict(member.annotations)} if member.annotations else entry


def origins(found: ManifestList) -> tuple[str, ...]:
    """Repositories in which its manifests lie, by one manifest each."""
    own = repository_of(found.ref)
    lie = {m.repository: f"{m.repository}@{m.digest}" for m in found.members if m.repository != own}
    return tuple(lie.values())
