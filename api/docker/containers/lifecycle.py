"""A container's life: start, stop, kill, restart, pause, rename, remove, wait, prune.

Docker's calls return once the thing has come about, ours once it is durable: here it is waited for.
"""

from __future__ import annotations

import re
import time
from typing import Any

from aiohttp import web
from msgspec import field

from aio.together import together
from api.docker.containers.creating import conflict
from api.docker.containers.listing import prunable
from api.docker.containers.sizes import written
from api.docker.errors import Refusal
from api.docker.hosts import asking
from api.docker.parameters import Filters
from api.docker.route import Call
from api.streaming import begin
from model.api import StopRequest, WaitCondition, WaitResult
from model.codec import encode_json
from model.errors import AlreadyExists, InvalidInput, NotFound, WrongState
from model.ids import NAME, is_id
from model.records import Desired
from model.running import may_run
from model.spec import Struct
from model.status import Phase, start_failure_code

_FOREVER = 86400.0
"""Seconds; as long as our grace goes. Docker's -1."""
_CONDITIONS: dict[str, WaitCondition] = {
    "": "stopped",
    "not-running": "stopped",
    "next-exit": "next-exit",
    "removed": "removed",
}
_UNMADE = (125, 126, 127)
"""Exit codes of what could not be started (`model.status.start_failure_code`)."""
_SIGNAL = re.compile(r"(?:SIG)?[A-Z0-9+]{1,12}\Z|\d{1,2}\Z")


class Stop(Struct):
    t: int | None = None
    signal: str = ""


class Kill(Struct):
    signal: str = ""


class Rename(Struct):
    name: str = ""


class Remove(Struct):
    v: bool = False
    force: bool = False
    link: bool = False


class Wait(Struct):
    condition: str = ""


class Prune(Struct):
    filters: Filters = field(default_factory=dict)


class Start(Struct):
    detachKeys: str = ""


async def start(call: Call) -> None:
    if (call.request.content_length or 0) > 7:
        raise InvalidInput("a body is not taken here: what a container is like is said when it is created")
    try:
        info = call.port.get_instance(call.ref())
    except NotFound:
        await _running(call, call.ref())  # one that could not be made, and removed itself, is still known
        raise
    if info.status.phase.live and info.instance.desired is not Desired.STOPPED:
        if info.status.paused:
            raise Refusal(409, "cannot start a paused container, try unpause instead")
        raise Refusal(304)
    await call.port.start_instance(info.instance.id)
    await _running(call, info.instance.id)


async def _running(call: Call, ident: str) -> None:
    """Returns once it runs, or ran. Raises Refusal in the runtime's words where it can't be started: 400 for
    a program that is not there or can't be run, as clients make exit codes of it."""
    result = await call.port.wait_instance(ident, "running")
    unmade = result.phase == Phase.REMOVED and result.exit_code in _UNMADE
    if result.phase == Phase.FAILED or unmade:
        message = result.message or "it could not be started"
        raise Refusal(400 if start_failure_code(message) in (126, 127) else 500, message)
    if result.phase == Phase.LOST:
        raise Refusal(503, result.message or "its host is lost")


async def stop(call: Call) -> None:
    info = call.port.get_instance(call.ref())
    if not may_run(info.instance, info.status):
        raise Refusal(304)
    await call.port.stop_instance(info.instance.id, _request(call.query_as(Stop)))
    await call.port.wait_instance(info.instance.id, "stopped")


async def restart(call: Call) -> None:
    ident = call.port.get_instance(call.ref()).instance.id
    await call.port.restart_instance(ident, _request(call.query_as(Stop)))
    await _running(call, ident)


def _request(query: Stop) -> StopRequest:
    grace = None if query.t is None else _FOREVER if query.t < 0 else float(query.t)
    return StopRequest(grace=grace, signal=_signal(query.signal) if query.signal else "")


def _signal(text: str) -> str:
    if not _SIGNAL.match(text.upper()) or text == "0":
        raise InvalidInput(f"Invalid signal: {text[:40]}")
    return text.upper()


async def kill(call: Call) -> None:
    info = call.port.get_instance(call.ref())
    signal = _signal(call.query_as(Kill).signal or "KILL")
    if not info.status.phase.live:
        raise Refusal(
            409, f"Cannot kill container: {call.ref()}: Container {info.instance.id} is not running"
        )
    async with asking(call.port, info.instance.id, "POST", "kill", {"signal": signal}) as reply:
        await reply.body()
    if signal.removeprefix("SIG") in ("KILL", "9"):  # Docker's command takes it for ended
        await call.port.wait_instance(info.instance.id, "stopped")


async def pause(call: Call) -> None:
    await _pause(call, paused=True)


async def unpause(call: Call) -> None:
    await _pause(call, paused=False)


async def _pause(call: Call, *, paused: bool) -> None:
    info = await call.port.pause_instance(call.ref(), paused=paused)
    ident = info.instance.id
    result = await call.port.wait_instance(ident, "paused" if paused else "unpaused")
    if call.port.get_instance(ident).status.paused is not paused and result.message:
        raise WrongState(result.message)


async def rename(call: Call) -> None:
    name = call.query_as(Rename).name.removeprefix("/")
    if not NAME.match(name):
        words = (
            "Neither old nor new names may be empty" if not name else f"Invalid container name ({name[:128]})"
        )
        raise InvalidInput(words)
    try:
        await call.port.rename_instance(call.ref(), name)
    except AlreadyExists as error:
        raise conflict(call.port, name, error) from error


async def remove(call: Call) -> None:
    query = call.query_as(Remove)
    if query.link:
        raise InvalidInput("link=1 is not supported: there are no links, containers know each other by name")
    info = call.port.get_instance(call.ref())
    if may_run(info.instance, info.status) and not query.force:
        paused = "paused" if info.status.paused else "running"
        raise Refusal(
            409,
            f'cannot remove container "/{info.instance.name}": container is {paused}: stop the container '
            "before removing or force remove",
        )
    await call.port.remove_instance(info.instance.id, force=query.force, volumes=query.v)
    await _removed(call, info.instance.id)


async def wait(call: Call) -> web.StreamResponse:
    """The head leaves at once: clients wait before they start what they wait for."""
    condition = _CONDITIONS.get(call.query_as(Wait).condition)
    if condition is None:
        raise InvalidInput(f'invalid condition: "{call.query_as(Wait).condition[:40]}"')
    ident = _known(call)
    # The wait comes first: what ends once the client has the head is not missed.
    waiting = _wait(call, ident, condition)
    result, response = await together((waiting, begin(call.request, "application/json")))
    await response.write(encode_json(_waited(result)) + b"\n")
    await response.write_eof()
    return response


async def _wait(call: Call, ident: str, condition: WaitCondition) -> WaitResult:
    try:
        return await call.port.wait_instance(ident, condition)
    except NotFound:
        return WaitResult(exit_code=None, phase=Phase.REMOVED)


def _known(call: Call) -> str:
    """The full id; also of one that removed itself, where it is named by that. Raises NotFound."""
    try:
        return call.port.get_instance(call.ref()).instance.id
    except NotFound:
        if not is_id(call.ref()):
            raise
        return call.ref()


def _waited(result: WaitResult) -> dict[str, Any]:
    if result.exit_code is not None:
        return {"StatusCode": result.exit_code}
    if result.phase in (Phase.FAILED, Phase.LOST):
        return {"StatusCode": start_failure_code(result.message), "Error": {"Message": result.message}}
    return {"StatusCode": 0}


async def prune(call: Call) -> dict[str, Any]:
    """Of what was made at this endpoint. What is freed is counted before: hosts delete in their own time."""
    gone = []
    mine = [info for info in call.port.list_instances() if info.origin == call.state.origin]
    found = prunable(mine, call.query_as(Prune).filters, time.time())
    sizes = await written(call.port, found)
    for info in found:
        try:
            await call.port.remove_instance(info.instance.id, force=False, volumes=False)
        except (NotFound, WrongState):  # gone, or started again since
            continue
        gone.append(info.instance.id)
    for ident in gone:
        await _removed(call, ident)
    return {"ContainersDeleted": gone or None, "SpaceReclaimed": sum(sizes.get(i, 0) for i in gone)}


async def _removed(call: Call, ident: str) -> None:
    try:
        await call.port.wait_instance(ident, "removed")
    except NotFound:
        return
