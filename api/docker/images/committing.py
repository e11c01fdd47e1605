"""`POST /commit`: an image of what a container has become, on its host.

What the body says of the new configuration is told to the host as instructions, as `changes` are.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

from api.docker.bodies import Body, Docker
from api.docker.containers.creating import created
from api.docker.fields import Field, Table, idle, refused
from api.docker.hosts import asking
from api.docker.images.names import joined
from api.docker.images.progress import Merged
from api.docker.route import Call
from model.codec import decode_json, encode_json
from model.containerfiles import CommitRequest
from model.errors import BY_CODE, ErrorBody, Internal, InvalidInput
from model.image import Progress
from model.spec import Struct

Words = str | tuple[str, ...] | None


class Commit(Struct):
    container: str = ""
    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: tuple[str, ...] = ()


class CommitBody(Docker):
    """Of a new configuration; what is not said is the container's."""

    user: str = ""
    env: tuple[str, ...] = ()
    cmd: Words = None
    entrypoint: Words = None
    working_dir: str = ""
    labels: Mapping[str, str] = {}
    exposed_ports: Mapping[str, Any] = {}
    volumes: Mapping[str, Any] = {}
    stop_signal: str = ""


_OF_CONTAINERS = "of containers, no part of an image"
COMMIT_FIELDS: Table = (
    *(
        Field(name)
        for name in ("User", "Env", "Cmd", "Entrypoint", "WorkingDir", "Labels", "ExposedPorts", "Volumes")
    ),
    Field("StopSignal"),
    *(refused(name, "build an image that has it") for name in ("Healthcheck", "OnBuild", "Shell")),
    *(
        idle(name, _OF_CONTAINERS)
        for name in (
            "Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin",
            "StdinOnce", "Image", "ArgsEscaped", "NetworkDisabled", "MacAddress", "StopTimeout",
        )
    ),
)  # fmt: skip
COMMIT = Body(CommitBody, COMMIT_FIELDS)


async def commit(call: Call) -> web.Response:
    query = call.query_as(Commit)
    if not query.container:
        raise InvalidInput("no container is named: give container=")
    changes = (line for text in query.changes for line in text.split("\n") if line.strip())
    request = CommitRequest(
        ref=joined(query.repo, query.tag) if query.repo else "",
        author=query.author,
        message=query.comment,
        changes=(*instructions(call.body_as(CommitBody)), *changes),
        pause=query.pause,
    )
    merged = Merged()
    ident = call.port.get_instance(query.container).instance.id
    async with asking(call.port, ident, "POST", "commit", body=encode_json(request)) as reply:
        async for line in _progress(reply.lines()):
            merged.take(line)
    failure = merged.failure()
    if failure is not None:
        raise failure
    if not merged.done:
        raise Internal("the host ended the commit without a word")
    return created({"Id": merged.done[-1].image})


async def _progress(lines: AsyncIterator[bytes]) -> AsyncIterator[Progress]:
    """Raises the error that a line carries."""
    async for line in lines:
        raw = decode_json(line, dict[str, Any], "a host's progress")
        if isinstance(raw.get("error"), dict):
            raise decode_json(line, _Ended, "a host's progress").error.to_error()
        said = decode_json(line, Progress, "a host's progress")
        if said.error:
            raise BY_CODE.get(said.error_code, Internal)(said.error)
        yield said


class _Ended(Struct):
    error: ErrorBody


def instructions(body: CommitBody) -> list[str]:
    """The body as Dockerfile lines. Raises InvalidInput for a text that no line can hold. Pure."""
    made: list[str] = []
    if body.user:
        made.append(f"USER {_plain('User', body.user)}")
    if body.working_dir:
        made.append(f"WORKDIR {_plain('WorkingDir', body.working_dir)}")
    for entry in body.env:
        name, _, value = entry.partition("=")
        made.append(f"ENV {_plain('Env', name)}={shlex.quote(value)}")
    for name, value in body.labels.items():
        made.append(f"LABEL {shlex.quote(name)}={shlex.quote(value)}")
    for name, given in (("ENTRYPOINT", body.entrypoint), ("CMD", body.cmd)):
        if given is not None and given != "":
            made.append(f"{name} {json.dumps([given] if isinstance(given, str) else list(given))}")
    made += [f"EXPOSE {_plain('ExposedPorts', port)}" for port in body.exposed_ports]
    made += [f"VOLUME {json.dumps([path])}" for path in body.volumes]
    if body.stop_signal:
        made.append(f"STOPSIGNAL {_plain('StopSignal', body.stop_signal)}")
    return made


def _plain(name: str, text: str) -> str:
    if any(char in text for char in "\n\r\0"):
        raise InvalidInput(f"{name} holds a line's end")
    return text
