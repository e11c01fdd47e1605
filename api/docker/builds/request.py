"""The query of `POST /build` as a request to our own builder. Pure.

Source: Docker Engine API 1.51, "ImageBuild". Invariant: what a build can't be done with is refused by its
name, before anything is sent to a host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec

from api.docker.fields import Field, Table, check, idle, partly, problems, refused
from api.docker.images.listing import platform_of
from api.docker.images.names import joined, repository_of
from model.build import BuildRequest, Context
from model.errors import InvalidInput
from model.registries import Login
from model.spec import Resources, Struct

T = TypeVar("T")
_GIT = re.compile(
    r"(?:git://|ssh://|git@[\w.-]+:|github\.com/).+|https?://[^?#]+\.git(?:[?#].*)?\Z", re.IGNORECASE
)
_HTTP = re.compile(r"https?://", re.IGNORECASE)
_PERIOD = 100_000
"""Microseconds, the kernel's own of CPU quotas."""
HOST_NETWORK = "network.host"


class UlimitWish(msgspec.Struct, rename="pascal"):
    name: str
    soft: int = 0
    hard: int = 0


class Build(Struct):
    t: tuple[str, ...] = ()
    dockerfile: str = ""
    remote: str = ""
    target: str = ""
    nocache: bool = False
    pull: bool = False
    rm: bool = False
    forcerm: bool = False
    q: bool = False
    buildargs: str = ""
    labels: str = ""
    cachefrom: str = ""
    networkmode: str = ""
    platform: str = ""
    extrahosts: tuple[str, ...] = ()
    shmsize: int = 0
    ulimits: str = ""
    memory: int = 0
    memswap: int = 0
    cpushares: int = 0
    cpusetcpus: str = ""
    cpusetmems: str = ""
    cpuquota: int = 0
    cpuperiod: int = 0
    cgroupparent: str = ""
    squash: bool = False
    securityopt: tuple[str, ...] = ()
    isolation: str = ""
    outputs: str = ""
    session: str = ""
    version: str = ""
    buildid: str = ""


PARAMETERS: Table = (
    Field("t"),
    Field("dockerfile"),
    partly("remote", "a Git repository, or a URL of a tar or a Dockerfile, at a public address"),
    Field("target"),
    Field("nocache"),
    Field("pull"),
    idle("rm", "no containers stay of steps"),
    idle("forcerm", "no containers stay of steps"),
    Field("q"),
    Field("buildargs"),
    Field("labels"),
    idle("cachefrom", "the cache of the whole fleet is always used"),
    partly("networkmode", "default, bridge, none, host, or a network's name; no other container's"),
    Field("platform"),
    Field("extrahosts"),
    Field("shmsize"),
    Field("ulimits"),
    Field("memory"),
    Field("memswap"),
    Field("cpushares"),
    Field("cpusetcpus"),
    refused("cpusetmems", "steps are not bound to memory nodes"),
    Field("cpuquota"),
    Field("cpuperiod"),
    refused("cgroupparent", "steps run in the builder's own cgroup"),
    refused("squash", "write fewer steps, or COPY --from a stage"),
    refused("securityopt", "steps run with the default profile"),
    refused("isolation", "", "default"),
    refused("outputs", "with a session (version=2) alone; or use `flota build --output`"),
    partly("session", "with version=2: folders, secrets, SSH agents and logins of BuildKit's clients"),
    partly("version", "1, and 2 with a session or with a tar as the request's body"),
    Field("buildid"),
)


def request_of(query: Build, logins: Mapping[str, Login]) -> BuildRequest:
    """Raises InvalidInput, Unsupported."""
    _possible(query)
    args = _json("buildargs", query.buildargs, dict[str, str | None]) or {}
    limits = _json("ulimits", query.ulimits, list[UlimitWish]) or []
    network = _network(query.networkmode)
    platform = platform_of(query.platform)
    return BuildRequest(
        dockerfile=b"",
        file=query.dockerfile or "Dockerfile",
        target=query.target,
        args={name: value for name, value in args.items() if value is not None},
        labels=_json("labels", query.labels, dict[str, str]) or {},
        names=tuple(dict.fromkeys(joined(text, "") for text in query.t if text)),
        platforms=(platform,) if platform else (),
        contexts=(remote_context(query.remote) if query.remote else Context(kind="tar"),),
        no_cache=query.nocache,
        pull=query.pull,
        network=network,
        hosts=tuple(query.extrahosts),
        resources=_resources(query),
        shm_size=query.shmsize,
        ulimits={limit.name: (limit.soft, limit.hard) for limit in limits},
        allow=(HOST_NETWORK,) if network == "host" else (),
        logins=logins,
        outline=True,
    )


def _possible(query: Build) -> None:
    if query.version not in ("", "1", "2"):
        raise InvalidInput(f"invalid version of the builder {query.version[:20]!r}: 1 and 2 are known")
    if query.remote == "client-session":
        raise InvalidInput("a context of the client's session", hint="Send version=2 and session=ID with it")
    for name, least in (("memory", 0), ("memswap", -1), ("shmsize", 0), ("cpushares", 0), ("cpuperiod", 0)):
        if getattr(query, name) < least:
            raise InvalidInput(f"{name}={getattr(query, name)} is less than {least}")
    check(problems(msgspec.structs.asdict(query) | {"securityopt": list(query.securityopt)}, PARAMETERS))


def remote_context(remote: str) -> Context:
    """Of a URL. Raises InvalidInput."""
    kind: Literal["git", "http"]
    if _GIT.match(remote):
        kind = "git"
    elif _HTTP.match(remote):
        kind = "http"
    else:
        raise InvalidInput(f"remote is neither a Git repository nor a URL: {remote[:80]!r}")
    return Context(kind=kind, ref=remote)


def _network(mode: str) -> str:
    if mode.startswith("container:"):
        raise InvalidInput("networkmode: another container's network can't be a build's")
    return "" if mode in ("", "default", "bridge") else mode


def _resources(query: Build) -> Resources:
    return Resources(
        nano_cpus=cpu_quota(query.cpuquota, query.cpuperiod),
        memory=query.memory,
        memory_swap=query.memswap,
        cpu_shares=query.cpushares,
        cpuset_cpus=query.cpusetcpus,
    )


def cpu_quota(quota: int, period: int) -> int:
    """Billionths of CPUs, of microseconds; 0 for none."""
    return max(quota, 0) * 1_000_000_000 // (max(period, 0) or _PERIOD)


def _json(name: str, text: str, type_: type[T]) -> T | None:
    """None for nothing, and for `null`. Raises InvalidInput."""
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=type_ | None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"{name}: {error}") from error


def place_key(query: Build) -> str:
    """What builds of the same things are known by, so that they find their cache warm."""
    what = query.remote.partition("#")[0] or next((repository_of(name) for name in query.t), "")
    return f"{what}:{query.dockerfile or 'Dockerfile'}"
