"""`POST /session`: the connection over which a client of BuildKit is asked for what its build needs."""

from __future__ import annotations

from aiohttp import web

from api.docker.buildkit.grpc import Channel
from api.docker.buildkit.http2 import Http2
from api.docker.buildkit.sessions import BuildSession
from api.docker.route import Call
from api.hijack import Taken, require, take_over
from model.errors import InvalidInput

MOST_METHODS = 200
MAX_ID = 200
PROTOCOL = "h2c"
_HEADER = "X-Docker-Expose-Session-"


async def session(call: Call) -> web.StreamResponse:
    """`POST /session`: the client's connection becomes one over which it is the server."""
    request = call.request
    require(request, PROTOCOL)
    ident = request.headers.get(f"{_HEADER}Uuid", "")
    if not ident or len(ident) > MAX_ID:
        raise InvalidInput(f"the header {_HEADER}Uuid names no session")
    methods = request.headers.getall(f"{_HEADER}Grpc-Method", [])[:MOST_METHODS]
    await request.read()
    call.state.build_sessions.check(ident)
    client = take_over(request, PROTOCOL)
    connection = Http2(client.reader, client.writer, client=True)
    shared = request.headers.get(f"{_HEADER}Sharedkey", "")[:MAX_ID]
    made = BuildSession(Channel(connection), shared, frozenset(one.lower() for one in methods))
    try:
        with call.state.build_sessions.known(ident, made):
            await connection.run()
    finally:
        connection.close()
    return Taken()
