"""A service's logs: those of its instances, merged line by line as they come, each line named.

Invariant: lines stay whole, and a slow reader slows the hosts down.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from api.fanin import merge
from api.hostcall import Hosts, ask, target
from api.ports import ControllerPort
from api.routes.query import Logs, ServiceLogs, logs_parameters
from model.api import InstanceInfo
from model.codec import decode_json
from model.errors import ErrorBody, FlotaError, NotFound
from model.ids import HostId
from model.streams import ERROR, MAX_FRAME, STDERR, STDOUT, Unframer

Item = tuple[int, bytes]
MAX_LINE = MAX_FRAME // 2


def merged(
    port: ControllerPort, instances: Sequence[InstanceInfo], query: ServiceLogs
) -> AsyncIterator[Item]:
    """Frames of whole lines. A host that can't be reached is named in a line on STDERR."""
    placed = [i for i in instances if i.instance.host is not None]
    width = max((len(_name(i)) for i in placed), default=0)
    return merge([_named(port, info, query, 0 if query.raw else width) for info in placed])


async def _named(
    port: ControllerPort, info: InstanceInfo, query: ServiceLogs, width: int
) -> AsyncIterator[Item]:
    prefix = f"{_name(info):<{width}} | ".encode() if width else b""
    try:
        async with aclosing(lines(port, info, query)) as said:
            async for kind, line in said:
                yield kind, prefix + line
    except NotFound:
        return
    except FlotaError as error:
        yield STDERR, f"{_name(info)}: {error.message}\n".encode()


def _name(info: InstanceInfo) -> str:
    return f"{info.instance.name}@{info.host_name}"


async def lines(port: Hosts, info: InstanceInfo, query: Logs) -> AsyncGenerator[Item, None]:
    """Of one placed instance, each whole. Raises NotFound, Unavailable."""
    assert info.instance.host is not None
    path = target(f"/v1/instances/{info.instance.id}/logs", logs_parameters(query))
    rest = {STDOUT: b"", STDERR: b""}
    unframer = Unframer()
    async with ask(port, HostId(info.instance.host), "GET", path) as reply:
        async for chunk in reply.chunks():
            for kind, payload in unframer.feed(chunk):
                if kind == ERROR:
                    raise decode_json(payload, ErrorBody, "a host's error").to_error()
                if kind not in rest:
                    continue
                *whole, rest[kind] = (rest[kind] + payload).split(b"\n")
                for line in whole:
                    yield kind, line[:MAX_LINE] + b"\n"
                if len(rest[kind]) > MAX_LINE:
                    yield kind, rest[kind][:MAX_LINE] + b"\n"
                    rest[kind] = rest[kind][MAX_LINE:]
    for kind, left in rest.items():
        if left:
            yield kind, left + b"\n"
