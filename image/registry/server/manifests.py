"""Manifests: sent, asked for, pushed, deleted, by tag or digest (distribution-spec, "Pushing Manifests")."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import ClientPayloadError, web

from image.manifest import MAX_DOCUMENT
from image.registry.server.call import DIGEST, Call, answer, headers
from image.registry.server.digests import SHA256, algorithm
from image.registry.server.documents import Document, parse
from image.registry.server.grammar import is_tag
from image.registry.server.index import Stored
from image.registry.server.pace import too_slow
from image.registry.server.refusal import Refusal


async def get(call: Call) -> web.StreamResponse:
    stored = await _found(call)
    about = headers({DIGEST: stored.digest, "ETag": f'"{stored.digest}"', "Content-Type": stored.media_type})
    if call.request.if_none_match and stored.digest in {tag.value for tag in call.request.if_none_match}:
        return web.Response(status=304, headers=about)
    return web.Response(body=stored.data, headers=about)


async def _found(call: Call) -> Stored:
    name, reference = call.target.name, call.target.reference
    if call.target.by_digest:
        stored = await call.registry.run(call.registry.content.index.manifest, name, "", reference)
    elif is_tag(reference):
        stored = await call.registry.run(call.registry.content.index.manifest, name, reference, "")
    else:
        stored = None
    if stored is None:
        raise unknown(call)
    assert isinstance(stored, Stored)
    return stored


async def put(call: Call) -> web.StreamResponse:
    name, reference = call.target.name, call.target.reference
    tag = "" if call.target.by_digest else reference
    if tag and not is_tag(tag):
        raise Refusal("MANIFEST_INVALID", f"{tag[:80]!r} is neither a tag nor a sha256 or sha512 digest")
    hashed_by = SHA256 if tag else algorithm(reference)
    async with contextlib.AsyncExitStack() as held:
        held.enter_context(call.registry.uploads.sending(call.caller.name))
        data = await _body(call, held)
        document = await _parsed(call, data, hashed_by)
        if not tag and document.digest != reference:
            raise Refusal("DIGEST_INVALID", f"what came has the digest {document.digest}, not {reference}")
        await call.registry.run(call.registry.content.index.put, name, document, data, tag)
    more = {DIGEST: document.digest, "Location": f"/v2/{name}/manifests/{reference}"}
    if document.subject:
        more["OCI-Subject"] = document.subject
    return answer(201, more)


async def _body(call: Call, held: contextlib.AsyncExitStack) -> bytes:
    """More than a small one is read only once it is one of the few large ones, which `held` then keeps."""
    if (call.length or 0) > MAX_DOCUMENT:
        raise _too_large()
    data, limits, waits, large = bytearray(), call.registry.limits, False, False
    try:
        async with asyncio.timeout(limits.window):
            async for piece in call.request.content.iter_any():
                data += piece
                if len(data) > MAX_DOCUMENT:
                    raise _too_large()
                if len(data) > limits.small and not large:
                    waits = True
                    await held.enter_async_context(call.registry.large)
                    waits, large = False, True
    except TimeoutError as error:
        if waits:
            words = f"{limits.large} other manifests of more than {limits.small} bytes come just now"
            raise Refusal("TOOMANYREQUESTS", words, headers={"Retry-After": "5"}) from error
        raise too_slow(f"the manifest did not come within {limits.window:g} s") from error
    except (ClientPayloadError, ConnectionError) as error:
        raise Refusal("MANIFEST_INVALID", "the body broke off") from error
    return bytes(data)


async def _parsed(call: Call, data: bytes, hashed_by: str) -> Document:
    kind, registry = call.request.headers.get("Content-Type", ""), call.registry
    async with registry.reading if len(data) > registry.limits.small else contextlib.nullcontext():
        document: Document = await registry.run(parse, data, kind, hashed_by)
    return document


async def delete(call: Call) -> web.StreamResponse:
    name, reference, index = call.target.name, call.target.reference, call.registry.content.index
    if call.target.by_digest:
        gone = await call.registry.run(index.remove, name, reference)
    else:
        gone = is_tag(reference) and await call.registry.run(index.untag, name, reference)
    if not gone:
        raise unknown(call)
    return answer(202)


def unknown(call: Call) -> Refusal:
    name, reference = call.target.name, call.target.reference[:128]
    return Refusal("MANIFEST_UNKNOWN", f"{name} has no manifest {reference}", detail={"reference": reference})


def _too_large() -> Refusal:
    return Refusal("MANIFEST_INVALID", f"a manifest has at most {MAX_DOCUMENT} bytes", status=413)
