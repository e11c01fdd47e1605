"""Blobs: sent whole or in part, asked for, deleted (distribution-spec, "Pulling blobs", "Deleting Blobs").

Invariant: a blob that is sent whole is hashed on its way, and its last piece leaves only once the digest is
right.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from image.registry.server import digests, ranges
from image.registry.server.call import DIGEST, Call, answer, headers
from image.registry.server.files import pieces
from image.registry.server.ranges import Span
from image.registry.server.refusal import Refusal


async def get(call: Call) -> web.StreamResponse:
    name, digest = call.target.name, call.target.reference
    size: int | None = await call.registry.run(call.registry.content.find, name, digest)
    if size is None:
        raise unknown(name, digest)
    about = headers(
        {DIGEST: digest, "Accept-Ranges": "bytes", "ETag": f'"{digest}"', "Cache-Control": "max-age=31536000"}
    )
    if call.request.if_none_match and digest in {tag.value for tag in call.request.if_none_match}:
        return web.Response(status=304, headers=about)
    head = call.request.method == "HEAD"
    # A part is wanted of the client's own state alone (RFC 9110, section 13.1.5).
    same = call.request.headers.get("If-Range", about["ETag"]) == about["ETag"]
    wanted = ranges.of_blob(call.request.headers.get("Range", ""), size) if same and not head else None
    span = wanted or Span(start=0, end=size)
    response = web.StreamResponse(status=200 if wanted is None else 206, headers=about)
    response.content_type = "application/octet-stream"
    response.content_length = span.size
    if wanted is not None:
        response.headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    await response.prepare(call.request)
    if not head:
        await _send(call, response, span, whole=span.size == size)
    return response


async def _send(call: Call, response: web.StreamResponse, span: Span, *, whole: bool) -> None:
    registry, digest = call.registry, call.target.reference
    path: Path = registry.content.files.blob(digest)
    source, hasher, sent = pieces(path, span.start, span.end), hashlib.new(digests.algorithm(digest)), 0
    while sent < span.size:
        piece: bytes = await call.registry.run(_next, source, hasher if whole else None)
        sent += len(piece)
        last = sent == span.size
        if not piece or (last and whole and digests.text(hasher) != digest):
            await call.registry.run(registry.content.spoiled, digest)
            if call.request.transport is not None:
                call.request.transport.abort()  # a length was promised that is not kept
            return
        try:
            async with asyncio.timeout(registry.limits.window):
                await response.write(piece)
        except TimeoutError:
            if call.request.transport is not None:
                call.request.transport.abort()
            return
    await response.write_eof()


def _next(source: Iterator[bytes], hasher: hashlib._Hash | None) -> bytes:
    try:
        piece = next(source, b"")
    except FileNotFoundError:
        return b""
    if hasher is not None:
        hasher.update(piece)
    return piece


async def delete(call: Call) -> web.StreamResponse:
    name, digest = call.target.name, call.target.reference
    if not await call.registry.run(call.registry.content.index.unlink, name, digest):
        raise unknown(name, digest)
    return answer(202)


def unknown(name: str, digest: str) -> Refusal:
    return Refusal("BLOB_UNKNOWN", f"{name} has no blob {digest}", detail={"digest": digest})
