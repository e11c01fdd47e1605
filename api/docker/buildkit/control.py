"""Messages of `/grpc`: BuildKit's Control and LLBBridge, by their tables. Pure.

Sources: github.com/moby/buildkit, api/services/control, api/types, frontend/gateway/pb, util/apicaps/pb.
Fields that nothing here needs are not in the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from api.docker.buildkit.messages import Timestamp
from api.docker.buildkit.wire import Field, Message, fields


# -- moby.buildkit.v1.Control -------------------------------------------------------------------------
class Typed(Message):
    """Exporter, CacheOptionsEntry: a type and its attributes."""

    type: str = ""
    attrs: Mapping[str, str] = {}
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "type", "text"), (2, "attrs", "text", "map"))


class Definition(Message):
    """pb.Definition: operations of LLB, which only a solver of BuildKit's own kind can do."""

    operations: tuple[bytes, ...] = ()
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "operations", "bytes", "many"))


class CacheOptions(Message):
    exports: tuple[Typed, ...] = ()
    imports: tuple[Typed, ...] = ()
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (4, "exports", Typed, "many"), (5, "imports", Typed, "many")
    )


class Solve(Message):
    """SolveRequest of Control."""

    ref: str = ""
    definition: Definition | None = None
    exporter: str = ""
    """Of clients that know but one."""
    exporter_attrs: Mapping[str, str] = {}
    session: str = ""
    frontend: str = ""
    attrs: Mapping[str, str] = {}
    cache: CacheOptions | None = None
    entitlements: tuple[str, ...] = ()
    inputs: Mapping[str, Definition] = {}
    policy: bytes = b""
    """Of sources; whatever it says."""
    exporters: tuple[Typed, ...] = ()
    policy_session: str = ""
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "ref", "text"),
        (2, "definition", Definition),
        (3, "exporter", "text"),
        (4, "exporter_attrs", "text", "map"),
        (5, "session", "text"),
        (6, "frontend", "text"),
        (7, "attrs", "text", "map"),
        (8, "cache", CacheOptions),
        (9, "entitlements", "text", "many"),
        (10, "inputs", Definition, "map"),
        (12, "policy", "bytes"),
        (13, "exporters", Typed, "many"),
        (15, "policy_session", "text"),
    )


class Solved(Message):
    response: Mapping[str, str] = {}
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "response", "text", "map"))


class Ref(Message):
    """StatusRequest."""

    ref: str = ""
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "ref", "text"))


class Platform(Message):
    architecture: str = ""
    os: str = ""
    variant: str = ""
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "architecture", "text"), (2, "os", "text"), (3, "variant", "text")
    )


class Version(Message):
    package: str = ""
    version: str = ""
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "package", "text"), (2, "version", "text"))


class Worker(Message):
    id: str = ""
    labels: Mapping[str, str] = {}
    platforms: tuple[Platform, ...] = ()
    version: Version | None = None
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "id", "text"),
        (2, "labels", "text", "map"),
        (3, "platforms", Platform, "many"),
        (5, "version", Version),
    )


class Workers(Message):
    workers: tuple[Worker, ...] = ()
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "workers", Worker, "many"))


class Info(Message):
    version: Version | None = None
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "version", Version))


class PruneRequest(Message):
    """`unused`: nanoseconds; the rest of the numbers are bytes."""

    filters: tuple[str, ...] = ()
    all: bool = False
    unused: int = 0
    reserved: int = 0
    most: int = 0
    free: int = 0
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "filters", "text", "many"),
        (2, "all", "flag"),
        (3, "unused", "int"),
        (4, "reserved", "int"),
        (5, "most", "int"),
        (6, "free", "int"),
    )


class UsageRequest(Message):
    """DiskUsageRequest."""

    filters: tuple[str, ...] = ()
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "filters", "text", "many"))


class Usage(Message):
    """UsageRecord."""

    id: str = ""
    mutable: bool = False
    in_use: bool = False
    size: int = 0
    created: Timestamp | None = None
    used: Timestamp | None = None
    description: str = ""
    type: str = ""
    shared: bool = False
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "id", "text"),
        (2, "mutable", "flag"),
        (3, "in_use", "flag"),
        (4, "size", "int"),
        (6, "created", Timestamp),
        (7, "used", Timestamp),
        (9, "description", "text"),
        (10, "type", "text"),
        (11, "shared", "flag"),
    )


class DiskUsage(Message):
    records: tuple[Usage, ...] = ()
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "records", Usage, "many"))


# -- moby.buildkit.v1.frontend.LLBBridge --------------------------------------------------------------
class Capability(Message):
    id: str = ""
    enabled: bool = False
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "id", "text"), (2, "enabled", "flag"))


class Pong(Message):
    capabilities: tuple[Capability, ...] = ()
    operations: tuple[Capability, ...] = ()
    workers: tuple[Worker, ...] = ()
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "capabilities", Capability, "many"),
        (2, "operations", Capability, "many"),
        (3, "workers", Worker, "many"),
    )


class BridgeSolve(Message):
    """SolveRequest of LLBBridge."""

    definition: Definition | None = None
    frontend: str = ""
    options: Mapping[str, str] = {}
    imports: tuple[Typed, ...] = ()
    inputs: Mapping[str, Definition] = {}
    FIELDS: ClassVar[Mapping[int, Field]] = fields(
        (1, "definition", Definition),
        (2, "frontend", "text"),
        (3, "options", "text", "map"),
        (12, "imports", Typed, "many"),
        (13, "inputs", Definition, "map"),
    )


class ResultRef(Message):
    id: str = ""
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "id", "text"))


class Result(Message):
    ref: ResultRef | None = None
    FIELDS: ClassVar[Mapping[int, Field]] = fields((3, "ref", ResultRef))


class BridgeSolved(Message):
    result: Result | None = None
    FIELDS: ClassVar[Mapping[int, Field]] = fields((3, "result", Result))


class Status(Message):
    """google.rpc.Status."""

    code: int = 0
    message: str = ""
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "code", "int"), (2, "message", "text"))


class Return(Message):
    result: Result | None = None
    error: Status | None = None
    FIELDS: ClassVar[Mapping[int, Field]] = fields((1, "result", Result), (2, "error", Status))
