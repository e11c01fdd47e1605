"""The messages of BuildKit's protocols that are spoken here, by their tables. Pure.

Sources: github.com/moby/buildkit, api/services/control, frontend/gateway/pb, session/*, solver/pb;
github.com/tonistiigi/fsutil, types. Fields that nothing here needs are not in the tables. A Struct that has
a text where the wire has `string` loses what is no UTF-8; paths of files are bytes for that reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from api.docker.buildkit.wire import Field, Message, fields


class Timestamp(Message):
    """google.protobuf.Timestamp."""

    seconds: int = 0
    nanos: int = 0
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "seconds", "int"), (2, "nanos", "int"))

    @classmethod
    def at(cls, moment: float) -> Timestamp:
        """`moment`: unix seconds."""
        nanos = int(moment * 1_000_000_000)
        return cls(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


class Bytes(Message):
    """BytesMessage of moby.filesync.v1, moby.sshforward.v1 and moby.upload.v1."""

    data: bytes = b""
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "data", "bytes"))


class Empty(Message):
    """A message of which nothing is read, or that has nothing."""


# -- fsutil.types -------------------------------------------------------------------------------------
STAT, REQUEST, DATA, FIN, ERROR = 0, 1, 2, 3, 4
"""Packet.type."""


class Stat(Message):
    """`mode` is Go's os.FileMode, `modified` in nanoseconds of unix time."""

    path: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    modified: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[str, bytes] = {}
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "path", "bytes"),
        (2, "mode", "int"),
        (3, "uid", "int"),
        (4, "gid", "int"),
        (5, "size", "int"),
        (6, "modified", "int"),
        (7, "link", "bytes"),
        (8, "major", "int"),
        (9, "minor", "int"),
        (10, "xattrs", "bytes", "map"),
    )


class Packet(Message):
    type: int = STAT
    stat: Stat | None = None
    id: int = 0
    data: bytes = b""
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "type", "int"), (2, "stat", Stat), (3, "id", "int"), (4, "data", "bytes")
    )


# -- what a session's client is asked for -------------------------------------------------------------
class Host(Message):
    """moby.filesync.v1.CredentialsRequest."""

    host: str = ""
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "host", "text"))


class Credentials(Message):
    user: str = ""
    secret: str = ""
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "user", "text"), (2, "secret", "text"))

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"


class Ident(Message):
    """moby.buildkit.secrets.v1.GetSecretRequest, moby.sshforward.v1.CheckAgentRequest."""

    id: str = ""
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "id", "text"))


class Secret(Message):
    data: bytes = b""
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "data", "bytes"))

    def __repr__(self) -> str:
        return "Secret()"


# -- moby.buildkit.v1: how far a build is -------------------------------------------------------------
class Vertex(Message):
    digest: str = ""
    inputs: tuple[str, ...] = ()
    name: str = ""
    cached: bool = False
    started: Timestamp | None = None
    completed: Timestamp | None = None
    error: str = ""
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "digest", "text"),
        (2, "inputs", "text", "many"),
        (3, "name", "text"),
        (4, "cached", "flag"),
        (5, "started", Timestamp),
        (6, "completed", Timestamp),
        (7, "error", "text"),
    )


class VertexStatus(Message):
    id: str = ""
    vertex: str = ""
    name: str = ""
    current: int = 0
    total: int = 0
    timestamp: Timestamp | None = None
    started: Timestamp | None = None
    completed: Timestamp | None = None
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "id", "text"),
        (2, "vertex", "text"),
        (3, "name", "text"),
        (4, "current", "int"),
        (5, "total", "int"),
        (6, "timestamp", Timestamp),
        (7, "started", Timestamp),
        (8, "completed", Timestamp),
    )


class VertexLog(Message):
    """`stream`: 1 or 2, as a process has them."""

    vertex: str = ""
    timestamp: Timestamp | None = None
    stream: int = 1
    data: bytes = b""
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "vertex", "text"), (2, "timestamp", Timestamp), (3, "stream", "int"), (4, "data", "bytes")
    )


class VertexWarning(Message):
    vertex: str = ""
    level: int = 0
    short: bytes = b""
    detail: tuple[bytes, ...] = ()
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "vertex", "text"), (2, "level", "int"), (3, "short", "bytes"), (4, "detail", "bytes", "many")
    )


class StatusResponse(Message):
    vertexes: tuple[Vertex, ...] = ()
    statuses: tuple[VertexStatus, ...] = ()
    logs: tuple[VertexLog, ...] = ()
    warnings: tuple[VertexWarning, ...] = ()
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "vertexes", Vertex, "many"),
        (2, "statuses", VertexStatus, "many"),
        (3, "logs", VertexLog, "many"),
        (4, "warnings", VertexWarning, "many"),
    )
