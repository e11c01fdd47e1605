"""`GET /containers/{id}/logs`: frames of both streams, or plain bytes of a terminal."""

from __future__ import annotations

from aiohttp import web

from api.docker.hosts import asking, frames
from api.docker.parameters import Moment
from api.docker.route import Call
from api.docker.versions import Version
from api.streaming import begin, error_body
from model.errors import InvalidInput
from model.spec import Struct
from model.streams import STDERR, STDOUT, pack

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
TOLD: Version = (1, 42)
"""From here on the type tells whether there are frames; before, all were called raw."""
SYSTEM = 3
"""Type of a frame that carries words of a failure."""


class Logs(Struct):
    follow: bool = False
    stdout: bool = False
    stderr: bool = False
    since: Moment | None = None
    until: Moment | None = None
    timestamps: bool = False
    tail: str = "all"
    details: bool = False


def content_type(version: Version, *, terminal: bool) -> str:
    return RAW if terminal or version < TOLD else MULTIPLEXED


async def logs(call: Call) -> web.StreamResponse:
    query = call.query_as(Logs)
    if not (query.stdout or query.stderr):
        raise InvalidInput("Bad parameters: you must choose at least one stream")
    info = call.port.get_instance(call.ref())
    terminal = info.instance.spec.tty
    asked = {
        "follow": query.follow,
        "tail": tail(query.tail),
        "since": query.since or None,
        "until": query.until or None,
        "timestamps": query.timestamps,
        "stdout": "true" if query.stdout or terminal else "false",
        "stderr": "true" if query.stderr else "false",
    }
    async with asking(call.port, info.instance.id, "GET", "logs", asked) as reply:
        response = await begin(call.request, content_type(call.version, terminal=terminal))
        try:
            async for kind, payload in frames(reply):
                if kind in (STDOUT, STDERR):
                    await response.write(payload if terminal else pack(kind, payload))
        except ConnectionError:
            return response
        except Exception as error:
            words = f"{error_body(error).message}\n".encode()
            await response.write(words if terminal else pack(SYSTEM, words))
        await response.write_eof()
        return response


def tail(text: str) -> int | None:
    """Lines; None is all, and whatever is no number, as in Docker."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 8 else None
