"""`GET /containers/{id}/stats` and `/top`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from api.docker.hosts import answer
from api.docker.route import Call
from api.docker.times import NEVER, moment
from api.hostcall import ask, target
from api.streaming import begin
from model.api import InstanceInfo, ProcessTable, StatsSample
from model.codec import decode_json, encode_json
from model.errors import Unsupported
from model.spec import Struct

_PS = ("", "-ef")
"""The columns that there are."""


class Stats(Struct):
    stream: bool = True
    one_shot: bool = False
    """One reading, without one before it to compare with."""


class Top(Struct):
    ps_args: str = ""


async def top(call: Call) -> dict[str, Any]:
    args = call.query_as(Top).ps_args
    if args.strip() not in _PS:
        raise Unsupported(f"ps_args={args[:60]} is not supported", hint="Leave it out: the columns are fixed")
    ident = call.port.get_instance(call.ref()).instance.id
    found = await answer(call.port, ident, "top", ProcessTable)
    return {"Titles": list(found.titles), "Processes": [list(row) for row in found.rows]}


async def stats(call: Call) -> web.StreamResponse | dict[str, Any]:
    query = call.query_as(Stats)
    info = call.port.get_instance(call.ref())
    if not info.status.phase.live:
        empty = stopped(info)
        return empty if not query.stream else await _lines(call, _once(empty))
    if query.stream:
        return await _lines(call, _shown(call, info, stream=True))
    last: dict[str, Any] = stopped(info)
    wanted = 1 if query.one_shot else 2
    async for shown in _shown(call, info, stream=not query.one_shot):
        last, wanted = shown, wanted - 1
        if not wanted:
            break
    return last


async def _lines(call: Call, source: AsyncIterator[dict[str, Any]]) -> web.StreamResponse:
    response = await begin(call.request, "application/json")
    try:
        async for shown in source:
            await response.write(encode_json(shown) + b"\n")
    except ConnectionError:
        return response
    await response.write_eof()
    return response


async def _once(shown: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield shown


async def _shown(call: Call, info: InstanceInfo, *, stream: bool) -> AsyncIterator[dict[str, Any]]:
    """Readings as they come, each with the one before; until it runs no more."""
    ident, host = call.port.locate_instance(info.instance.id)
    path = target("/v1/stats", {"ref": (ident,), "stream": stream})
    before: StatsSample | None = None
    async with ask(call.port, host, "GET", path) as reply:
        async for line in reply.lines():
            samples = decode_json(line, tuple[StatsSample, ...], "a host's figures")
            if not samples:
                return
            yield reading(samples[0], before)
            before = samples[0]


def reading(sample: StatsSample, before: StatsSample | None) -> dict[str, Any]:
    """One reading in Docker's shape, of a cgroup v2: what it lacks there is what we don't count."""
    network = {
        name: 0
        for way in ("rx", "tx")
        for name in (f"{way}_bytes", f"{way}_packets", f"{way}_errors", f"{way}_dropped")
    }
    network |= {"rx_bytes": sample.network_rx, "tx_bytes": sample.network_tx}
    return {
        "name": f"/{sample.name}",
        "id": sample.instance,
        "read": moment(sample.at),
        "preread": moment(before.at) if before is not None else NEVER,
        "num_procs": 0,
        "pids_stats": {"current": sample.pids, **({"limit": sample.pids_limit} if sample.pids_limit else {})},
        "cpu_stats": _cpu(sample),
        "precpu_stats": _cpu(before) if before is not None else _cpu(StatsSample(instance="", name="", at=0)),
        "memory_stats": {
            "usage": sample.memory,
            "limit": sample.memory_limit,
            "stats": {"inactive_file": 0},
        },
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"major": 0, "minor": 0, "op": op, "value": value}
                for op, value in (("read", sample.block_read), ("write", sample.block_write))
            ],
            **dict.fromkeys(
                (
                    "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
                    "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive",
                )
            ),
        },
        "networks": {"eth0": network},
        "storage_stats": {},
    }  # fmt: skip


def _cpu(sample: StatsSample) -> dict[str, Any]:
    """The system's figure is time × CPUs, so that a client's share of it is a share of the host's CPUs."""
    return {
        "cpu_usage": {"total_usage": sample.cpu_ns, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "system_cpu_usage": int(sample.at * 1e9) * sample.online_cpus,
        "online_cpus": sample.online_cpus,
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }


def stopped(info: InstanceInfo) -> dict[str, Any]:
    """Of one that doesn't run: nothing is used."""
    sample = StatsSample(instance=info.instance.id, name=info.instance.name, at=0)
    return reading(sample, None) | {"networks": None}
