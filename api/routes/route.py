"""What a route is, and what its handler gets: the parsed request and the port behind the API.

Invariant: a handler sees only what was decoded strictly. It answers a value (encoded as JSON), None (204),
or a response that it has already begun (streams).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from aiohttp import web

from api.ports import ControllerPort, HostPort, Identity
from model.registries import HEADER, Login, decode_header
from model.spec import Struct

CA = web.AppKey("ca", str)
"""The fleet's certificate authority, PEM."""
P = TypeVar("P")
T = TypeVar("T")
Role = Literal["admin", "host", "anonymous"]
Kind = Literal["query", "command", "watch", "stream"]


class NoQuery(Struct):
    """The query of a route that takes none."""


@dataclass(frozen=True)
class Call(Generic[P]):
    """One request, authenticated and decoded."""

    port: P
    identity: Identity
    request: web.Request
    query: Struct
    body: Any

    def ref(self, name: str = "ref") -> str:
        """A path parameter, percent-decoded."""
        return self.request.match_info[name]

    def query_as(self, type_: type[T]) -> T:
        assert isinstance(self.query, type_)
        return self.query

    def login(self) -> Login:
        """Who the caller is at a registry, as its header says. Raises InvalidInput."""
        return decode_header(self.request.headers.get(HEADER, ""))

    def body_as(self, type_: type[T]) -> T:
        assert isinstance(self.body, type_)
        return self.body


ControllerCall = Call[ControllerPort]
HostCall = Call[HostPort]


@dataclass(frozen=True)
class Route(Generic[P]):
    """`role` is who may call: `admin` people, `host` an agent with its certificate, `anonymous` everybody.

    kind: `query` reads and answers at once; `command` changes something and is not broken off when its client
    vanishes; `watch` waits and is; `stream` writes its own reply. `body` None: none is allowed, unless it
    is a stream, which reads the body itself.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    handler: Callable[[Call[P]], Awaitable[object]]
    summary: str
    kind: Kind = "query"
    role: Role = "admin"
    query: type[Struct] = NoQuery
    body: Any = None
    body_optional: bool = False
    """An absent body is a body of defaults."""
    reply: Any = None
    """Type of the JSON reply, or of each line of an NDJSON stream; None: no content, or raw bytes."""


ControllerRoute = Route[ControllerPort]
HostRoute = Route[HostPort]
