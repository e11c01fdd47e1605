"""Pushing blobs: at once, in chunks, or mounted from another repository (distribution-spec, "Pushing blobs").

Invariant: a blob is read from another repository only by who may pull from that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import ClientPayloadError, web

from image.registry.server import ranges
from image.registry.server.access import may
from image.registry.server.call import DIGEST, Call, answer
from image.registry.server.digests import DIGITS, SHA256, algorithm
from image.registry.server.grammar import check_digest, is_name
from image.registry.server.refusal import Refusal
from image.registry.server.uploads import Session

MOST_SOURCES = 1000
"""Repositories that are looked at for a mount which names none."""


async def begin(call: Call) -> web.StreamResponse:
    """POST: a session, a blob at once (`digest`), or a mount (`mount`, `from`)."""
    query = call.request.query
    if "mount" in query:
        digest = check_digest(query["mount"])
        if await _mounted(call, digest, query.get("from", "")):
            return _blob_made(call, digest)
    at_once = "digest" in query and "mount" not in query
    if at_once:
        check_digest(query["digest"])
    named = algorithm(query["digest"]) if at_once else query.get("digest-algorithm", SHA256)
    if named not in DIGITS:
        raise Refusal("DIGEST_INVALID", f"{named[:40]!r} is none of the algorithms {', '.join(DIGITS)}")
    session = await call.registry.uploads.begin(call.target.name, call.caller.name, named)
    if at_once:
        try:
            return await _finished(call, session, query["digest"])
        finally:
            await _drop(call, session)
    return _accepted(call, session)


async def _mounted(call: Call, digest: str, source: str) -> bool:
    content = call.registry.content
    if source:
        sources = [source] if is_name(source) else []
    else:
        sources = await call.registry.run(content.index.repositories_with, digest, MOST_SOURCES)
    for name in sources:
        if may(call.caller, "pull", name) and await call.registry.run(
            content.mount, call.target.name, digest, name
        ):
            return True
    return False


async def status(call: Call) -> web.StreamResponse:
    session = _session(call)
    return answer(204, {**_where(call, session), "Range": ranges.of_upload(session.size)})


async def patch(call: Call) -> web.StreamResponse:
    session = _session(call)
    with call.registry.uploads.writing(session, call.caller.name):
        await _append(call, session)
    return _accepted(call, session)


async def put(call: Call) -> web.StreamResponse:
    session = _session(call)
    digest = check_digest(call.request.query.get("digest", ""))
    return await _finished(call, session, digest)


async def cancel(call: Call) -> web.StreamResponse:
    session = _session(call)
    with call.registry.uploads.writing(session, call.caller.name):
        await call.registry.uploads.drop(session)
    return answer(204)


async def _finished(call: Call, session: Session, digest: str) -> web.StreamResponse:
    with call.registry.uploads.writing(session, call.caller.name):
        await _append(call, session)
        await call.registry.uploads.finish(session, digest)
    return _blob_made(call, digest)


async def _append(call: Call, session: Session) -> None:
    """The request's body, which begins where the upload ends."""
    chunk = ranges.of_chunk(call.request.headers.get("Content-Range", ""), call.length)
    if chunk is not None and chunk.start != session.size:
        raise Refusal(
            "BLOB_UPLOAD_INVALID",
            f"the chunk begins at {chunk.start}, the upload has {session.size} bytes",
            status=416,
            headers={**_where(call, session), "Range": ranges.of_upload(session.size)},
        )
    before = session.size
    most = None if chunk is None else chunk.size
    await call.registry.uploads.receive(session, _body(call.request), most=most)
    if chunk is not None and session.size - before != chunk.size:
        words = f"the Content-Range has {chunk.size} bytes, the body {session.size - before}"
        raise Refusal("SIZE_INVALID", words, headers=_where(call, session))


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """Raises Refusal where the connection breaks: what came before is kept."""
    try:
        async for piece in request.content.iter_any():
            yield piece
    except (ClientPayloadError, ConnectionError) as error:
        raise Refusal("BLOB_UPLOAD_INVALID", "the body broke off") from error


def _session(call: Call) -> Session:
    return call.registry.uploads.get(call.target.name, call.target.reference)


async def _drop(call: Call, session: Session) -> None:
    """A blob that was to come at once, and didn't: nobody knows where to go on."""
    if session.begun.id in call.registry.uploads:
        await call.registry.uploads.drop(session)


def _where(call: Call, session: Session) -> dict[str, str]:
    return {
        "Location": f"/v2/{call.target.name}/blobs/uploads/{session.begun.id}",
        "Docker-Upload-UUID": session.begun.id,
    }


def _accepted(call: Call, session: Session) -> web.Response:
    return answer(202, {**_where(call, session), "Range": ranges.of_upload(session.size)})


def _blob_made(call: Call, digest: str) -> web.Response:
    return answer(201, {"Location": f"/v2/{call.target.name}/blobs/{digest}", DIGEST: digest})
