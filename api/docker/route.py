"""What a route of the Docker API is, and what its handler gets. Pure but for the request that it hands on.

Invariant: a handler sees the query and the body only as they were decoded by the types that its route names.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from aiohttp import web

from api.docker.bodies import Body
from api.docker.fields import Table
from api.docker.parameters import NoQuery
from api.docker.ports import DockerPort
from api.docker.state import State
from api.docker.versions import NEWEST, OLDEST, Version
from api.ports import Identity
from model.registries import HEADER, Login, decode_header
from model.spec import Struct

T = TypeVar("T")
Kind = Literal["query", "command", "watch", "stream"]
NODE_HEADER = "X-PortainerAgent-Target"
"""Which node a request is about, as Portainer says it."""


@dataclass(frozen=True)
class Call:
    """One request, authenticated and decoded."""

    port: DockerPort
    state: State
    identity: Identity
    request: web.Request
    version: Version
    path: dict[str, str]
    query: Struct
    body: Any

    def ref(self, name: str = "name") -> str:
        """A parameter of the path, percent-decoded, without the slash that old clients put before names."""
        return self.path[name].removeprefix("/")

    def query_as(self, type_: type[T]) -> T:
        assert isinstance(self.query, type_)
        return self.query

    def body_as(self, type_: type[T]) -> T:
        assert isinstance(self.body, type_)
        return self.body

    def login(self) -> Login:
        """Who the caller is at a registry. Raises InvalidInput."""
        return decode_header(self.request.headers.get(HEADER, ""))

    def node(self) -> str:
        """The node that the request is about, if it says one."""
        return self.request.headers.get(NODE_HEADER, "")


Handler = Callable[[Call], Awaitable[object]]


@dataclass(frozen=True)
class Route:
    """A handler answers a value (JSON), None (204), or a response that it has begun itself.

    kind: as in `api.routes.route`. `path` has `{name}` for one part, `{name:.*}` where slashes may be in it.
    """

    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE"]
    path: str
    handler: Handler
    summary: str
    kind: Kind = "query"
    query: type[Struct] = NoQuery
    body: Body | None = None
    since: Version = OLDEST
    until: Version = NEWEST
    role: Literal["admin"] = "admin"
    parameters: Table = ()
    """Of the query, where what is done of it needs words."""
    pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", pattern(self.path))

    def match(self, method: str, path: str, version: Version) -> dict[str, str] | None:
        """The parameters of a path that is this route's."""
        if method != self.method or not self.since <= version <= self.until:
            return None
        found = self.pattern.match(path)
        return found.groupdict() if found else None


def pattern(path: str) -> re.Pattern[str]:
    """What matches a path, its parameters as groups."""
    parts = re.split(r"\{(\w+)(:\.\*)?\}", path)
    made = re.escape(parts[0])
    for name, deep, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        made += f"(?P<{name}>{'.+' if deep else '/?[^/]+'}){re.escape(rest)}"
    return re.compile(rf"{made}\Z", re.DOTALL)
