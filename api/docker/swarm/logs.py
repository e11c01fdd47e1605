"""Logs of a service or a task: lines of its containers as they come, each with who says it.

With `details` a line begins with Docker's attributes of its task, by which its command prefixes names.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast
from urllib.parse import quote

from aiohttp import web

from api.docker.containers.logs import Logs, content_type, tail
from api.docker.ports import DockerPort
from api.docker.route import Call
from api.docker.swarm.tasks import Task, tasks_of
from api.fanin import merge
from api.routes import query as native
from api.servicelogs import Item, lines
from api.streaming import begin
from model.errors import FlotaError, InvalidInput, NotFound
from model.ids import resolve
from model.streams import STDERR, STDOUT, pack


async def of_service(call: Call) -> web.StreamResponse:
    return await _logs(call, tasks_of((call.port.get_service(call.ref()),)))


async def of_task(call: Call) -> web.StreamResponse:
    return await _logs(call, [find_task(call.port, call.ref())])


def find_task(port: DockerPort, ref: str) -> Task:
    """By id, unique prefix of it, or its container's name. Raises NotFound, Ambiguous."""
    known = {task.id: task for task in tasks_of(port.list_services())}
    return known[resolve("task", ref, [(i, task.info.instance.name) for i, task in known.items()])]


async def _logs(call: Call, tasks: Sequence[Task]) -> web.StreamResponse:
    query = call.query_as(Logs)
    if not (query.stdout or query.stderr):
        raise InvalidInput("Bad parameters: you must choose at least one stream")
    terminal = any(task.info.instance.spec.tty for task in tasks)
    response = await begin(call.request, content_type(call.version, terminal=terminal))
    placed = [task for task in tasks if task.info.instance.host is not None]
    source = merge([_said(call.port, task, query) for task in placed])
    async with aclosing(cast("AsyncGenerator[Item, None]", source)) as said:
        try:
            async for kind, line in said:
                await response.write(line if terminal else pack(kind, line))
        except ConnectionError:
            return response
    await response.write_eof()
    return response


async def _said(port: DockerPort, task: Task, query: Logs) -> AsyncIterator[Item]:
    """A host that can't be reached says so in a line of its own."""
    terminal = task.info.instance.spec.tty
    asked = native.Logs(
        follow=query.follow,
        tail=tail(query.tail),
        since=query.since or None,
        until=query.until or None,
        timestamps=query.timestamps,
        stdout=query.stdout or terminal,
        stderr=query.stderr,
    )
    details = _details(task) if query.details and not terminal else b""
    try:
        async with aclosing(lines(port, task.info, asked)) as found:
            async for kind, line in found:
                if kind in (STDOUT, STDERR):
                    yield kind, _marked(line, details, timestamps=query.timestamps)
    except NotFound:  # nothing of it is left there
        return
    except FlotaError as error:
        words = f"{task.name}@{task.info.host_name}: {error.message}\n".encode()
        yield STDERR, _marked(words, details, timestamps=False)


def _details(task: Task) -> bytes:
    said = {
        "com.docker.swarm.node.id": task.info.instance.host or "",
        "com.docker.swarm.service.id": task.service.id,
        "com.docker.swarm.task.id": task.id,
    }
    return ",".join(f"{key}={quote(value, safe='')}" for key, value in said.items()).encode()


def _marked(line: bytes, details: bytes, *, timestamps: bool) -> bytes:
    """The attributes stand before the words, and behind the time."""
    if not details:
        return line
    if not timestamps:
        return details + b" " + line
    at, _, rest = line.partition(b" ")
    return b" ".join((at, details, rest))
