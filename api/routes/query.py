"""Query strings: one type per route, decoded strictly; an unknown, doubled or malformed parameter is a
400."""

from __future__ import annotations

import functools
import typing

import msgspec
from multidict import MultiMapping

from model.api import WaitCondition
from model.errors import InvalidInput, Problem
from model.spec import Struct

MAX_TAIL = 10_000_000


class Filtered(Struct):
    """`filter=key=value`, repeatable: see `api.filters`."""

    filter: tuple[str, ...] = ()


class ListInstances(Filtered):
    all: bool = False
    limit: int = 0
    """The newest so many, whatever their state; 0: no limit."""


class OnHost(Struct):
    host: str = ""
    """Id or name; empty: every ready host."""


class RemoveInstance(Struct):
    force: bool = False
    volumes: bool = False


class Rename(Struct):
    name: str


class Wait(Struct):
    condition: WaitCondition = "stopped"


class Kill(Struct):
    signal: str = "KILL"


class Start(Struct):
    hold: bool = False


class Attach(Struct):
    stdin: bool = False
    logs: bool = False
    attempt: int = 0


class Logs(Struct):
    follow: bool = False
    tail: int | None = None
    since: float | None = None
    until: float | None = None
    timestamps: bool = False
    stdout: bool = True
    stderr: bool = True


class ServiceLogs(Logs):
    raw: bool = False
    """Without the name of the container before each line."""


def logs_parameters(query: Logs) -> dict[str, str | bool | int | float | None]:
    """The parameters that make a host answer the same question."""
    return {
        "follow": query.follow,
        "tail": query.tail,
        "since": query.since,
        "until": query.until,
        "timestamps": query.timestamps,
        "stdout": "true" if query.stdout else "false",
        "stderr": "true" if query.stderr else "false",
    }


class AtPath(Struct):
    path: str
    """In the container, from its root."""


class Extract(AtPath):
    replace: bool = False
    """A file may take a directory's place, and a directory a file's."""


class Stats(Struct):
    ref: tuple[str, ...] = ()
    stream: bool = False


class Written(Struct):
    ref: tuple[str, ...] = ()
    """Ids of containers; none: all."""


class Resolve(Struct):
    resolve: bool = False
    """Find out the digest of its image first, so that all hosts run the same."""
    keep_login: bool = False
    """Keep the login that came with the request, for the hosts that pull."""


class Scale(Struct):
    replicas: int


class Doctor(Struct):
    ways: bool = False
    """Also every way that was tried."""


class Force(Struct):
    force: bool = False


class Events(Filtered):
    since: float | None = None
    until: float | None = None


class OfPlatform(OnHost):
    platform: str = ""
    """os/arch[/variant]; empty: the host's own."""


class Pull(Struct):
    ref: str
    platform: str = ""
    host: str = ""
    all: bool = False
    """Every platform of its index."""


class Copy(Struct):
    ref: str
    to: tuple[str, ...] = ()
    """Ids or names; none: every ready host."""
    host: str = ""
    """That it is copied from; empty: any that has it."""


class Push(Struct):
    ref: str
    host: str = ""
    platform: str = ""
    referrers: bool = False
    """And what refers to it where it came from."""


class PushIndex(Struct):
    ref: str
    host: str = ""


class Distribution(Struct):
    ref: str
    host: str = ""
    config: bool = False
    """Also the platform of an image, which its configuration says."""
    near: bool = False
    """At the first mirror of its registry that has it, from where it would be pulled."""


class Repository(Struct):
    repository: str


class Manifest(Struct):
    ref: str
    """`REPOSITORY:TAG` or `REPOSITORY@DIGEST`."""


class Registry(Struct):
    registry: str
    host: str = ""


class Search(Struct):
    term: str
    limit: int = 25
    host: str = ""
    filter: tuple[str, ...] = ()


class Save(Struct):
    ref: tuple[str, ...]
    host: str = ""
    platform: str = ""


class Import(OfPlatform):
    ref: str = ""
    message: str = ""
    change: tuple[str, ...] = ()


class Tag(Struct):
    name: str
    host: str = ""


class RemoveImage(OfPlatform):
    force: bool = False


class ListImages(Filtered):
    host: str = ""


class Prune(OnHost):
    all: bool = False


class PruneImages(Prune):
    filter: tuple[str, ...] = ()
    """`until=SECONDS`, `label=…`, `label!=…`; all must hold."""


class MakeRoom(OnHost):
    to: int | None = None
    """Percent of the disk that may be used in the end; without: what the fleet's settings say."""


class RemoveVolume(OnHost):
    force: bool = False


class ListVolumes(Filtered):
    host: str = ""


def percent(value: int | None) -> int | None:
    """As it is. Raises InvalidInput when it is no share of a disk."""
    if value is not None and not 0 <= value <= 100:
        raise InvalidInput(f"to={value} is no percentage", hint="It goes from 0 to 100")
    return value


def parse_query(values: MultiMapping[str], type_: type[Struct]) -> Struct:
    """The query as a `type_`. Raises InvalidInput with every problem."""
    hints = _hints(type_)
    raw: dict[str, object] = {}
    problems: list[Problem] = []
    for name in dict.fromkeys(values.keys()):
        given = values.getall(name)
        if name not in hints:
            problems.append(Problem(path=name[:80], message="unknown query parameter"))
        elif typing.get_origin(hints[name]) is tuple:
            raw[name] = tuple(given)
        elif len(given) > 1:
            problems.append(Problem(path=name, message="given more than once"))
        else:
            raw[name] = given[0]
    problems += _negative(raw)
    if problems:
        raise InvalidInput.of("query", tuple(problems))
    try:
        return msgspec.convert(raw, type_, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        where = path.strip("`").removeprefix("$").removeprefix(".")
        raise InvalidInput.of("query", (Problem(path=where, message=message),)) from error


@functools.cache
def _hints(type_: type[Struct]) -> dict[str, object]:
    return typing.get_type_hints(type_)


def _negative(raw: dict[str, object]) -> list[Problem]:
    """Numbers here are counts and times: never negative, never beyond any use."""
    problems = []
    for name in ("tail", "limit", "since", "until"):
        text = raw.get(name)
        if not isinstance(text, str):
            continue
        try:
            value = float(text)
        except ValueError:
            continue
        if not 0 <= value <= (MAX_TAIL if name in ("tail", "limit") else 1e11):
            problems.append(Problem(path=name, message=f"{text[:40]} is out of range"))
    return problems
