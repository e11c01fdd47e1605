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
from api.docker.containers.body import Health
from api.docker.containers.creating import created
from api.docker.containers.files import made
from api.docker.containers.hostconfig import health_of
from api.docker.fields import Field, Table, idle
from api.docker.hosts import asking
from api.docker.images.names import joined
from api.docker.images.progress import Merged
from api.docker.route import Call
from model.codec import decode_json, encode_json
from model.containerfiles import CommitRequest
from model.errors import BY_CODE, ErrorBody, Internal, InvalidInput
from model.image import Progress
from model.spec import ExecProbe, ShellProbe, Struct

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
    healthcheck: Health | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()


_OF_CONTAINERS = "of containers, no part of an image"
COMMIT_FIELDS: Table = (
    *(
        Field(name)
        for name in (
            "User", "Env", "Cmd", "Entrypoint", "WorkingDir", "Labels", "ExposedPorts", "Volumes",
            "StopSignal", "Healthcheck", "OnBuild", "Shell",
        )
    ),
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
    ident = await made(call, query.container)
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
    if body.shell:
        made.append(f"SHELL {json.dumps(list(body.shell))}")
    if body.user:
        made.append(f"USER {_plain('User', body.user)}")
    if body.working_dir:
        made.append(f"WORKDIR {_plain('WorkingDir', body.working_dir)}")
    for entry in body.env:
        name, _, value = entry.partition("=")
        made.append(f"ENV {_plain('Env', name)}={shlex.quote(value)}")
    for name, value in body.labels.items():
        made.append(f"LABEL {shlex.quote(name)}={shlex.quote(value)}")
    entrypoint, cmd = _words(body.entrypoint), _words(body.cmd)
    if entrypoint is not None:
        made.append(f"ENTRYPOINT {json.dumps(entrypoint)}")
    if cmd or entrypoint:  # as in Docker: a command of the container's belongs to its own entry point
        made.append(f"CMD {json.dumps(cmd or [])}")
    made += [f"EXPOSE {_plain('ExposedPorts', port)}" for port in body.exposed_ports]
    made += [f"VOLUME {json.dumps([path])}" for path in body.volumes]
    if body.stop_signal:
        made.append(f"STOPSIGNAL {_plain('StopSignal', body.stop_signal)}")
    if body.healthcheck is not None:
        made += _health(body.healthcheck)
    made += [f"ONBUILD {_plain('OnBuild', text)}" for text in body.on_build]
    return made


def _words(given: Words) -> list[str] | None:
    if given is None or given == "":
        return None
    return [given] if isinstance(given, str) else list(given)


def _health(wish: Health) -> list[str]:
    """Raises InvalidInput also for a command that no line can hold."""
    found = health_of(wish)
    if found is None:
        return []
    if found.disabled:
        return ["HEALTHCHECK NONE"]
    match found.probe:
        case ExecProbe(args=args):
            command = json.dumps(list(args))
        case ShellProbe(command=text) if text.strip() == text and text[0] != "[" and text[-1] != "\\":
            command = _plain("Healthcheck", text)
        case _:
            raise InvalidInput(
                "Healthcheck: no instruction can hold it", hint='Give a Test of "CMD" and words'
            )
    times = (
        ("interval", wish.interval),
        ("timeout", wish.timeout),
        ("start-period", wish.start_period),
        ("start-interval", wish.start_interval),
    )
    flags = [f"--{name}={value}ns" for name, value in times if value]
    flags += [f"--retries={wish.retries}"] if wish.retries else []
    return [" ".join(("HEALTHCHECK", *flags, "CMD", command))]


def _plain(name: str, text: str) -> str:
    if any(char in text for char in "\n\r\0"):
        raise InvalidInput(f"{name} holds a line's end")
    return text
