"""Files of containers: `archive` in both directions, `export`, `changes`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import stat
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from api.docker.errors import Refusal
from api.docker.hosts import answer, asking, frames, instance_path
from api.docker.route import Call
from api.docker.streams import host_stream
from api.docker.times import moment
from api.hostcall import Reply
from api.streaming import TAR, octets
from model.codec import decode_json, encode_json
from model.containerfiles import Change, PathStat
from model.errors import ErrorBody, InvalidInput, NotFound, Unsupported
from model.spec import Struct
from model.streams import ERROR, EXIT, MAX_FRAME, STDIN, STDOUT, Unframer, pack

MAKING = 10.0
"""Seconds that a container may take to get its files before an act on them is refused."""
STAT = "X-Docker-Container-Path-Stat"
_KINDS = {"C": 0, "A": 1, "D": 2}
_GO_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


class AtPath(Struct):
    path: str = ""


class Extract(AtPath):
    noOverwriteDirNonDir: bool = False
    copyUIDGID: bool = False


def go_mode(mode: int) -> int:
    """`st_mode` as Go's os.FileMode numbers it."""
    bits = sum(go for ours, go in _GO_BITS.items() if mode & ours)
    return _GO_TYPES.get(stat.S_IFMT(mode), 0) | bits | mode & 0o777


def stat_header(found: PathStat) -> str:
    """Base64 of JSON, as the header carries it."""
    said = {
        "name": found.name,
        "size": found.size,
        "mode": go_mode(found.mode),
        "mtime": moment(found.mtime),
        "linkTarget": found.link_target,
    }
    return base64.b64encode(encode_json(said)).decode("ascii")


async def made(call: Call, ref: str) -> str:
    """The id of a container that has its files: to Docker's clients it has them from its creation on."""
    info = call.port.get_instance(ref)
    if not (info.status.phase.live or info.status.phase.ended):
        with contextlib.suppress(TimeoutError):  # then the act itself says what is missing
            async with asyncio.timeout(MAKING):
                await call.port.wait_instance(info.instance.id, "created")
    return info.instance.id


async def _stat(call: Call, query: AtPath) -> PathStat:
    """Raises Refusal in the words by which docker cp tells that only the path is missing."""
    if not query.path:
        raise InvalidInput("Bad parameter: path cannot be empty")
    ident = await made(call, call.ref())
    try:
        return await answer(call.port, ident, "stat", PathStat, path=query.path)
    except NotFound as error:
        words = f"Could not find the file {query.path[:400]} in container {call.ref()}"
        raise Refusal(404, words) from error


async def head(call: Call) -> web.Response:
    found = await _stat(call, call.query_as(AtPath))
    return web.Response(status=200, headers={STAT: stat_header(found)})


async def get(call: Call) -> web.StreamResponse:
    query = call.query_as(AtPath)
    found = await _stat(call, query)
    ident = call.port.get_instance(call.ref()).instance.id
    async with asking(call.port, ident, "GET", "archive", {"path": query.path}) as reply:
        return await octets(call.request, _payloads(reply), TAR, {STAT: stat_header(found)})


async def export(call: Call) -> web.StreamResponse:
    ident = await made(call, call.ref())
    async with asking(call.port, ident, "GET", "export") as reply:
        return await octets(call.request, _payloads(reply), "application/octet-stream")


async def _payloads(reply: Reply) -> AsyncIterator[bytes]:
    async for kind, payload in frames(reply):
        if kind == STDOUT:
            yield payload


async def put(call: Call) -> web.Response:
    """A tar into a directory. Raises what the host says of it."""
    query = call.query_as(Extract)
    if not query.path:
        raise InvalidInput("Bad parameter: path cannot be empty")
    if query.copyUIDGID:
        raise Unsupported("copyUIDGID is not supported", hint="Files keep the owners that the archive names")
    ident, host = call.port.locate_instance(await made(call, call.ref()))
    replace = {} if query.noOverwriteDirNonDir else {"replace": "true"}
    path = instance_path(ident, "archive", {"path": query.path, **replace})
    try:
        async with host_stream(call.port, host, path) as pipe:
            async for chunk in call.request.content.iter_chunked(MAX_FRAME):
                pipe.writer.write(pack(STDIN, chunk))
                await pipe.writer.drain()
            pipe.writer.write(pack(STDIN, b""))
            await pipe.writer.drain()
            await _taken(pipe.reader)
    except NotFound as error:
        raise Refusal(404, f"Could not find the file {query.path[:400]} in container {call.ref()}") from error
    return web.Response(status=200)


async def _taken(reader: Any) -> None:
    """Until the host says that it is done. Raises what went wrong there."""
    unframer = Unframer()
    while data := await reader.read(1 << 16):
        for kind, payload in unframer.feed(data):
            if kind == ERROR:
                raise decode_json(payload, ErrorBody, "a host's error").to_error()
            if kind == EXIT:
                return


async def changes(call: Call) -> list[dict[str, Any]] | None:
    """null where nothing changed, as in Docker."""
    ident = await made(call, call.ref())
    async with asking(call.port, ident, "GET", "changes") as reply:
        found = [_change(line) async for line in reply.lines()]
    return found or None


def _change(line: bytes) -> dict[str, Any]:
    raw = decode_json(line, dict[str, Any], "a host's change")
    if isinstance(raw.get("error"), dict):
        raise decode_json(encode_json(raw["error"]), ErrorBody, "a host's error").to_error()
    change = decode_json(line, Change, "a host's change")
    return {"Path": change.path, "Kind": _KINDS[change.kind]}
