"""In the place of a fleet's registry that can't be served: its port answers every request with the reason."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator

from aiohttp import web

from api.listen import serve_tls
from api.server import runner
from model.errors import FlotaError


@contextlib.asynccontextmanager
async def serving(
    error: FlotaError, *, listen: str, port: int, context: ssl.SSLContext
) -> AsyncIterator[None]:
    """503, in the form of the distribution specification ("Error Codes"), which clients show to people.
    Raises AlreadyExists when the port is in use."""
    words = f"this registry is not served: {error}"

    async def refuse(request: web.Request) -> web.Response:
        del request
        return web.json_response({"errors": [{"code": "UNKNOWN", "message": words}]}, status=503)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    served = runner(app)
    await served.setup()
    try:
        await serve_tls(served, listen, port, context)
        yield
    finally:
        await served.cleanup()
