"""Execs: `POST /containers/{id}/exec`, then start, resize and inspection by the exec's own id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web
from msgspec.structs import replace

from api.docker.bodies import Body, Docker
from api.docker.containers.attach import Resize, size_of
from api.docker.containers.body import Words
from api.docker.containers.creating import created
from api.docker.containers.hostconfig import environment, removed, words
from api.docker.containers.logs import content_type
from api.docker.detach import DEFAULT, parse_keys
from api.docker.errors import Refusal
from api.docker.execs import Exec
from api.docker.fields import Field, Table
from api.docker.hosts import instance_path
from api.docker.ports import DockerPort
from api.docker.route import Call
from api.docker.streams import Wish, carry, hijack, host_stream
from api.hijack import Taken
from model.codec import decode_json, encode_json
from model.errors import FlotaError, InvalidInput, NotFound, WrongState
from model.status import start_failure_code
from model.streams import EXIT, STDOUT, ExecSpec, Exit, Unframer, pack

_CREATE: Table = tuple(
    Field(name)
    for name in (
        "AttachStdin", "AttachStdout", "AttachStderr", "DetachKeys", "Tty", "Env", "Cmd", "Privileged",
        "User", "WorkingDir", "ConsoleSize", "Container", "Detach",
    )
)  # fmt: skip
_START: Table = tuple(Field(name) for name in ("Detach", "Tty", "ConsoleSize"))


class CreateExec(Docker):
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    env: tuple[str, ...] = ()
    cmd: Words = ()
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
    console_size: tuple[int, int] | None = None


class StartExec(Docker):
    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None


CREATE = Body(CreateExec, _CREATE, optional=False)
START = Body(StartExec, _START)


def _environment(entries: Sequence[str]) -> dict[str, str]:
    """Raises InvalidInput."""
    if gone := removed(entries):
        hint = "Give it an empty value"
        raise InvalidInput(f"Env: {gone[0][:80]} has no value: an exec takes no variable away", hint=hint)
    return environment(entries)


async def create(call: Call) -> web.Response:
    body = call.body_as(CreateExec)
    cmd = words(body.cmd)
    if not cmd:
        raise InvalidInput("No exec command specified")
    if body.detach_keys:
        parse_keys(body.detach_keys)
    info = call.port.get_instance(call.ref())
    if info.status.paused:
        raise Refusal(409, f"Container {info.instance.id} is paused, unpause the container before exec")
    if not info.status.phase.live:
        raise Refusal(409, f"Container {info.instance.id} is not running")
    ident, host = call.port.locate_instance(info.instance.id)
    rows, cols = body.console_size or (0, 0)
    spec = ExecSpec(
        args=cmd,
        env=_environment(body.env),
        user=body.user,
        workdir=body.working_dir,
        tty=body.tty,
        stdin=body.attach_stdin,
        privileged=body.privileged,
        rows=rows,
        cols=cols,
    )
    made = call.state.execs.add(ident, host, spec, stdout=body.attach_stdout, stderr=body.attach_stderr)
    made.detach_keys = body.detach_keys
    return created({"Id": made.id})


async def start(call: Call) -> web.StreamResponse | None:
    made, body = call.state.execs.get(call.ref()), call.body_as(StartExec)
    if made.started:
        words_ = "is already running" if made.running else "has already run"
        raise Refusal(409, f"Error: Exec command {made.id} {words_}")
    if call.port.get_instance(made.container).status.paused:
        raise Refusal(409, f"Container {made.container} is paused, unpause the container before exec")
    if body.console_size is not None:
        rows, cols = body.console_size
        made.spec = replace(made.spec, rows=rows, cols=cols)
    made.started = made.running = True
    if body.detach:
        call.state.tasks.start(f"exec {made.id}", lambda: _alone(call.port, made))
        return web.Response(status=200)
    return await _attached(call, made, raw=body.tty)


async def _attached(call: Call, made: Exec, *, raw: bool) -> web.StreamResponse:
    """`raw`: without frames, as the start says, whatever the exec was made with."""
    wish = Wish(
        terminal=raw,
        stdin=made.spec.stdin,
        stdout=made.stdout,
        stderr=made.stderr and not made.spec.tty,
        keys=parse_keys(made.detach_keys or DEFAULT) if made.spec.tty and made.spec.stdin else b"",
        ends_stdin=not made.spec.tty,
    )
    # Told before it begins, as Docker does: clients that read the head through a buffer would lose what comes
    # together with it. From here on what goes wrong is said in the stream.
    client = hijack(call.request, content_type(call.version, terminal=wish.terminal))
    try:
        async with host_stream(call.port, made.host, *_asked(made)) as pipe:
            with call.state.sessions.attached(made.id, pipe.writer):
                _over(made, await carry(client, pipe, wish))
    except FlotaError as error:
        _failed(made, error)
        said = f"{error.message}\r\n".encode()
        client.writer.write(said if wish.terminal else pack(STDOUT, said))
    finally:
        made.running = False
        client.writer.close()
    return Taken()


async def _alone(port: DockerPort, made: Exec) -> None:
    """Nobody looks on: its output is read and forgotten, its end is kept."""
    unframer = Unframer()
    try:
        async with host_stream(port, made.host, *_asked(made)) as pipe:
            while data := await pipe.reader.read(1 << 16):
                for kind, payload in unframer.feed(data):
                    if kind == EXIT:
                        _over(made, decode_json(payload, Exit, "a host's exit"))
    except FlotaError as error:
        _failed(made, error)
    finally:
        made.running = False


def _asked(made: Exec) -> tuple[str, bytes]:
    return instance_path(made.container, "exec"), encode_json(made.spec)


def _over(made: Exec, ended: Exit | None) -> None:
    if ended is not None:
        made.exit_code = ended.exit_code


def _failed(made: Exec, error: FlotaError) -> None:
    """As Docker's: 127 for a program that is not there, 126 for one that can't be run."""
    code = start_failure_code(error.message)
    made.exit_code = 126 if code == 125 else code


async def resize(call: Call) -> web.Response:
    rows, cols = size_of(call.query_as(Resize))
    made = call.state.execs.get(call.ref())
    if not made.running or not call.state.sessions.resize(made.id, rows, cols):
        raise WrongState(f"exec {made.id[:12]} is not running")
    return web.Response(status=200)


async def inspect(call: Call) -> dict[str, Any]:
    made = call.state.execs.get(call.ref())
    try:
        call.port.get_instance(made.container)
    except NotFound:
        raise NotFound(f"no such exec instance: {made.id}") from None
    program, *arguments = made.spec.args
    return {
        "ID": made.id,
        "Running": made.running,
        "ExitCode": made.exit_code,
        "ProcessConfig": {
            "tty": made.spec.tty,
            "entrypoint": program,
            "arguments": arguments,
            "privileged": made.spec.privileged,
            "user": made.spec.user,
        },
        "OpenStdin": made.spec.stdin,
        "OpenStderr": made.stderr,
        "OpenStdout": made.stdout,
        "CanRemove": not made.running and made.started,
        "ContainerID": made.container,
        "DetachKeys": made.detach_keys,
        "Pid": 0,
    }
