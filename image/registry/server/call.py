"""One request to the registry that may be done, and the answers that handlers make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from image.registry.server.access import Caller
from image.registry.server.grammar import Target
from image.registry.server.registry import Registry

DIGEST = "Docker-Content-Digest"


@dataclass(frozen=True)
class Call:
    registry: Registry
    caller: Caller
    target: Target
    request: web.Request

    @property
    def length(self) -> int | None:
        """Of the body, where it was announced."""
        return self.request.content_length


def headers(more: Mapping[str, str] | None = None) -> dict[str, str]:
    return {"Docker-Distribution-Api-Version": "registry/2.0", **(more or {})}


def answer(status: int, more: Mapping[str, str] | None = None) -> web.Response:
    """Without a body."""
    return web.Response(status=status, headers=headers(more))


def json_answer(
    body: bytes, *, content_type: str = "application/json", more: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(body=body, content_type=content_type, headers=headers(more))
