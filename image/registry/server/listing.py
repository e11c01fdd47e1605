"""Content discovery: tags, referrers, repositories (distribution-spec, "Content Discovery")."""

from __future__ import annotations

import msgspec
from aiohttp import web

from image.manifest import MAX_DOCUMENT, OCI_INDEX
from image.registry.server import ranges
from image.registry.server.access import may
from image.registry.server.call import Call, json_answer
from image.registry.server.refusal import Refusal

_BATCH = 1000


async def base(call: Call) -> web.StreamResponse:
    """Who comes here is known, and this is a registry."""
    del call
    return json_answer(b"{}")


async def tags(call: Call) -> web.StreamResponse:
    name = call.target.name
    wanted = ranges.page(call.request.query, call.registry.limits.tags)
    found: list[str] | None = await call.registry.run(call.registry.content.index.tags, name, wanted)
    if found is None:
        raise Refusal("NAME_UNKNOWN", f"there is no repository {name}", detail={"name": name})
    kept, following = ranges.cut(found, wanted)
    more = {}
    if following:
        query = {"n": str(wanted.number), "last": following}
        more["Link"] = ranges.link(f"/v2/{name}/tags/list", query)
    return json_answer(msgspec.json.encode({"name": name, "tags": kept}), more=more)


async def catalog(call: Call) -> web.StreamResponse:
    """Repositories that the caller may pull from."""
    wanted = ranges.page(call.request.query, call.registry.limits.tags)
    found: list[str] = []
    after = wanted.last
    while len(found) <= wanted.number:
        names: list[str] = await call.registry.run(call.registry.content.index.names, after, _BATCH)
        found += [name for name in names if may(call.caller, "pull", name)]
        if len(names) < _BATCH:
            break
        after = names[-1]
    kept, following = ranges.cut(found, wanted)
    more = {}
    if following:
        more["Link"] = ranges.link("/v2/_catalog", {"n": str(wanted.number), "last": following})
    return json_answer(msgspec.json.encode({"repositories": kept}), more=more)


async def referrers(call: Call) -> web.StreamResponse:
    """An index of the manifests that have the digest as their subject; empty where nobody knows of it."""
    name, subject = call.target.name, call.target.reference
    kind, after = call.request.query.get("artifactType", ""), call.request.query.get("last", "")
    most = call.registry.limits.referrers
    found: list[tuple[str, bytes]] = await call.registry.run(
        call.registry.content.index.referrers, name, subject, kind, after, most + 1
    )
    entries: list[msgspec.Raw] = []
    size = 0
    for _, descriptor in found[:most]:
        size += len(descriptor) + 1
        if entries and size > MAX_DOCUMENT // 2:
            break
        entries.append(msgspec.Raw(descriptor))
    more = {}
    if kind:
        more["OCI-Filters-Applied"] = "artifactType"
    if len(entries) < len(found):
        query = {"last": found[len(entries) - 1][0]} | ({"artifactType": kind} if kind else {})
        more["Link"] = ranges.link(f"/v2/{name}/referrers/{subject}", query)
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json_answer(msgspec.json.encode(body), content_type=OCI_INDEX, more=more)
