"""`POST /grpc`: BuildKit's Control, and LLBBridge for clients that solve by a function of their own (buildx).

A build is run where its frontend is named: at Control's Solve, or at the bridge's. Source: buildkit,
control/control.go and client/build.go. Invariant: whatever a connection began ends with it.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, Mapping

from aiohttp import web

from api.docker.buildkit.attributes import UPLOAD, Typed, plan_of
from api.docker.buildkit.control import (
    BridgeSolve,
    BridgeSolved,
    Capability,
    Definition,
    Info,
    Platform,
    Pong,
    PruneRequest,
    Ref,
    Result,
    ResultRef,
    Return,
    Solve,
    Solved,
    UsageRequest,
    Version,
    Worker,
    Workers,
)
from api.docker.buildkit.entrance import PROTOCOL
from api.docker.buildkit.framing import error_of
from api.docker.buildkit.grpc import Handler, ServerCall, served
from api.docker.buildkit.jobs import Job, Jobs
from api.docker.buildkit.messages import Bytes, Empty
from api.docker.buildkit.running import Wanted
from api.docker.buildkit.sessions import BuildSession
from api.docker.buildkit.trace import Trace
from api.docker.buildkit.usage import disk_usage, prune
from api.docker.images.stream import words_of
from api.docker.route import Call
from api.hijack import Taken, require, take_over
from model.build import Done, FromHost
from model.errors import InvalidInput, NotFound, Unsupported
from model.version import VERSION

CONTROL, BRIDGE = "/moby.buildkit.v1.Control/", "/moby.buildkit.v1.frontend.LLBBridge/"
PULL = "/moby.upload.v1.Upload/Pull"
BUILD_ID = "buildkit-controlapi-buildid"
FRONTEND = "dockerfile.v0"
SNAPSHOTTER = "org.mobyproject.buildkit.worker.snapshotter"
"""By this label buildx knows a builder that writes archives, builds for several platforms and pushes."""
CAPABILITIES = ("solve.base", "return", "returnmap", "proto.refarray", "importcaches")
ABILITIES = ("exporter.image.attestations", "exporter.multiple")
"""Of what is built, that buildx asks about: what it does not find it does not ask for."""


async def grpc(call: Call) -> web.StreamResponse:
    request = call.request
    require(request, PROTOCOL)
    await request.read()
    client = take_over(request, PROTOCOL)
    try:
        async with served(client.reader, client.writer, Services(call).handlers) as running:
            await running
    finally:
        client.writer.close()
    return Taken()


class Services:
    """Of one connection."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._jobs = Jobs()
        self.handlers: Mapping[str, Handler] = {
            f"{CONTROL}ListWorkers": self._workers,
            f"{CONTROL}Info": self._info,
            f"{CONTROL}Solve": self._solve,
            f"{CONTROL}Status": self._status,
            f"{CONTROL}DiskUsage": self._usage,
            f"{CONTROL}Prune": self._prune,
            f"{BRIDGE}Ping": self._ping,
            f"{BRIDGE}Solve": self._bridge,
            f"{BRIDGE}Return": self._return,
        }

    # -- what there is ------------------------------------------------------------------------------
    async def _workers(self, call: ServerCall) -> None:
        await call.asked(Empty)
        await call.send(Workers(workers=(self._worker(),)))

    async def _info(self, call: ServerCall) -> None:
        await call.asked(Empty)
        await call.send(Info(version=Version(package="flota", version=VERSION)))

    async def _ping(self, call: ServerCall) -> None:
        await call.asked(Empty)
        able, able_to = (
            tuple(Capability(id=one, enabled=True) for one in some) for some in (CAPABILITIES, ABILITIES)
        )
        await call.send(Pong(capabilities=able, operations=able_to, workers=(self._worker(),)))

    async def _usage(self, call: ServerCall) -> None:
        await call.send(await disk_usage(self._call, (await call.asked(UsageRequest)).filters))

    async def _prune(self, call: ServerCall) -> None:
        for one in await prune(self._call, await call.asked(PruneRequest)):
            await call.send(one)

    def _worker(self) -> Worker:
        """The fleet as one; platforms are those of its hosts."""
        found = [one.host.facts.platform for one in self._call.port.list_hosts()]
        platforms = dict.fromkeys((one.os, one.arch, one.variant) for one in found)
        return Worker(
            id="flota",
            labels={SNAPSHOTTER: "overlayfs"},
            platforms=tuple(Platform(os=os, architecture=arch, variant=v) for os, arch, v in platforms),
            version=Version(package="flota", version=VERSION),
        )

    # -- a build ------------------------------------------------------------------------------------
    async def _solve(self, call: ServerCall) -> None:
        wanted = await call.asked(Solve)
        _plain(wanted.definition, wanted.inputs)
        if wanted.policy or wanted.policy_session:
            raise Unsupported("a policy of sources is not kept here", hint="Build without one")
        with self._jobs.began(wanted) as job:
            if wanted.frontend:
                await self._build(job, wanted.frontend, wanted.attrs)
            else:
                await job.returned
            await call.send(Solved(response=response(job.done) if job.done is not None else {}))

    async def _status(self, call: ServerCall) -> None:
        job = await self._jobs.get((await call.asked(Ref)).ref)
        async for status in job.events():
            await call.send(status)

    async def _bridge(self, call: ServerCall) -> None:
        asked = await call.asked(BridgeSolve)
        _plain(asked.definition, asked.inputs)
        job = await self._job_of(call)
        if asked.frontend:
            await self._build(job, asked.frontend, asked.options)
        await call.send(BridgeSolved(result=Result(ref=ResultRef(id=secrets.token_hex(12)))))

    async def _return(self, call: ServerCall) -> None:
        said = await call.asked(Return)
        job = await self._job_of(call)
        error = said.error
        job.give(error_of(error.code, error.message) if error and error.code else None)
        await call.send(Empty())

    async def _job_of(self, call: ServerCall) -> Job:
        return await self._jobs.get(call.metadata.get(BUILD_ID, ""))

    async def _build(self, job: Job, frontend: str, attrs: Mapping[str, str]) -> None:
        """Raises how it failed."""
        if frontend != FRONTEND:
            raise Unsupported(f"the frontend {frontend[:40]} is not known here", hint=f"{FRONTEND} is")
        if job.done is not None:
            raise InvalidInput("a second build by one call")
        wanted = job.wanted
        session = await self._call.state.build_sessions.get(wanted.session)
        exports = tuple(_typed(one.type, one.attrs) for one in wanted.cache.exports) if wanted.cache else ()
        plan = plan_of(attrs, _exporters(wanted), exports, wanted.entitlements, session.serves)
        trace = Trace(wanted.ref)

        async def tell(message: FromHost) -> None:
            job.tell(trace.take(message, time.time()))

        uploads = {}
        main = plan.request.contexts[0]
        if main.ref.startswith(UPLOAD):
            uploads[""] = lambda: pulled(session, main.ref)
        place = f"{session.shared}:{next(iter(plan.request.names), '')}:{plan.request.file}"
        try:
            job.done = await Wanted(self._call, plan, session, tell, place=place, given=uploads).run()
        except Exception as error:
            job.tell(trace.ended(words_of(error), time.time()))
            raise
        job.tell(trace.ended("", time.time()))


def _plain(definition: Definition | None, inputs: Mapping[str, Definition]) -> None:
    if inputs or (definition is not None and definition.operations):
        raise Unsupported(
            "operations of LLB are not done here", hint=f"Build a Dockerfile by the frontend {FRONTEND}"
        )


def _exporters(wanted: Solve) -> tuple[Typed, ...]:
    if wanted.exporters:
        return tuple(_typed(one.type, one.attrs) for one in wanted.exporters)
    return (_typed(wanted.exporter, wanted.exporter_attrs),)


def _typed(type_: str, attrs: Mapping[str, str]) -> Typed:
    return type_, attrs


def response(done: Done) -> dict[str, str]:
    """ExporterResponse, as BuildKit's exporters call what they made."""
    found = {name: value for name, value in map(_unquoted, done.metadata.items()) if value}
    ident = next((built.image for built in done.images if built.image), "")
    if ident:
        found.setdefault("containerimage.config.digest", ident)
        found["containerimage.digest"] = done.digest or ident
    return found


def _unquoted(item: tuple[str, str]) -> tuple[str, str]:
    """A text of the metadata, which is JSON; what is no text stays as it is."""
    name, text = item
    value = json.loads(text)
    return name, value if isinstance(value, str) else text


async def pulled(session: BuildSession, url: str) -> AsyncGenerator[bytes, None]:
    """A tar that the client has on its standard input. Raises NotFound."""
    if not session.serves(PULL):
        raise NotFound(f"the client does not give {url[:200]}")
    path = "/" + url.removeprefix(UPLOAD)
    async with session.channel.call(PULL, [("urlpath", path)]) as stream:
        await stream.sent()
        while (piece := await stream.receive(Bytes)) is not None:
            if piece.data:
                yield piece.data
