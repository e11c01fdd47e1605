"""This host's own API (`api.ports.HostPort`): acts on its containers, images and volumes."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Mapping, Sequence

from agent import execs, stats
from agent.actions import signal_number
from agent.buildroom import BuildRoom
from agent.builds import Builds
from agent.cgroup import CgroupFiles
from agent.doctor import examine
from agent.endpoints import mode_of
from agent.files.acts import Files
from agent.host import HostAgent
from agent.imageapi import ImageApi
from agent.logs import LogQuery, LogReader
from agent.record import Local
from agent.serveown import OwnContainers
from agent.streams import DetachedSession, HandleSession, last_of
from agent.worker import Worker
from api.ports import AttachSession
from model.api import CreateVolume, InstanceInfo, ProcessTable, StatsSample, VolumeInfo
from model.containerfiles import Change, CommitRequest, PathStat
from model.doctor import HostCheck
from model.errors import Unsupported, WrongState
from model.health import HealthLog
from model.ids import InstanceId, is_id, resolve, short
from model.image import Progress
from model.leases import HostLeases
from model.own import OwnAct
from model.status import HostFacts
from model.streams import STDERR, STDOUT, ExecSpec, Exit

STATS_PERIOD = 1.0
_ENDING = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
"""Signals that are meant to end a container; others may only talk to it."""
ARRIVAL = 10.0
"""Seconds that an attach waits for the assignment of its container."""


class HostApi(ImageApi):
    def __init__(
        self,
        agent: HostAgent,
        cgroups: CgroupFiles,
        logs: LogReader,
        builds: Builds | None = None,
        room: BuildRoom | None = None,
    ) -> None:
        super().__init__(agent, builds, room)
        self._cgroups = cgroups
        self._logs = logs
        self._own = OwnContainers(agent, lambda: secrets.token_hex(32))

    def facts(self) -> HostFacts:
        return self._agent.context.facts

    def leases(self) -> HostLeases:
        context = self._agent.context
        return context.addresses.told(context.builders.keys() | context.records.keys(), context.clock.now())

    async def examine_networks(self) -> HostCheck:
        return await examine(self._agent.context, lambda: self._agent.host_report().conditions)

    async def act_on_own(self, ref: str, act: OwnAct) -> InstanceInfo:
        return await self._own.act(ref, act)

    # -- containers ---------------------------------------------------------------------------------
    async def kill(self, ref: str, signal: str) -> None:
        """As in Docker, a restart policy does not start again what a person has ended."""
        record, number = self._running(ref), signal_number(signal)
        if number in _ENDING:
            self._worker(ref).killed()
        await self._agent.context.runtime.signal(record.instance, number)

    async def attach(self, ref: str, *, stdin: bool, logs: bool, attempt: int = 0) -> AttachSession:
        worker = await self._arriving(ref)
        record = await worker.held(attempt)
        context = self._agent.context
        path = str(context.log_path(record.instance))
        before = await last_of(self._logs.read(path, LogQuery())) if logs else ()
        handle = await context.runtime.attach(str(context.bundle(record.instance)), stdin=stdin)

        async def ending() -> Exit:
            return _exit_of(await worker.over())

        async def kill(number: int) -> None:
            await context.runtime.signal(record.instance, number)

        return HandleSession(handle, ending=ending, kill=kill, before=before)

    async def exec(self, ref: str, spec: ExecSpec) -> AttachSession:
        record = self._running(ref)
        context = self._agent.context
        if record.paused:
            raise WrongState(f"container {short(record.instance)} is paused", hint="Unpause it first")
        handle = await execs.start(context, record.instance, spec)
        if spec.detach:
            await handle.close()
            return DetachedSession()

        async def ending() -> Exit:
            ended = await handle.wait()
            return Exit(exit_code=ended.code, oom_killed=ended.oom_killed)

        return HandleSession(handle, ending=ending, kill=handle.signal)

    async def logs(
        self,
        ref: str,
        *,
        follow: bool,
        tail: int | None,
        since: float | None,
        until: float | None,
        timestamps: bool,
        stdout: bool = True,
        stderr: bool = True,
    ) -> AsyncIterator[tuple[int, bytes]]:
        worker = self._worker(ref)
        want = self._agent.context.view.instances.get(worker.record.instance)
        if want is not None and want.spec.log.driver == "none":
            raise Unsupported(
                "configured logging driver does not support reading",
                hint="It was made with the log driver none: attach to it while it runs",
            )
        path = str(self._agent.context.log_path(worker.record.instance))
        streams = frozenset({STDOUT} if stdout else ()) | frozenset({STDERR} if stderr else ())
        query = LogQuery(tail=tail, since=since, until=until, timestamps=timestamps, streams=streams)
        if not follow:
            async for item in self._logs.read(path, query):
                yield item
            return
        async for item in self._logs.follow(path, query, lambda: _log_is_over(worker)):
            yield item

    async def stats(self, refs: Sequence[str], *, stream: bool) -> AsyncIterator[Sequence[StatsSample]]:
        while True:
            chosen = [self._worker(ref).record for ref in refs] if refs else self._all()
            yield [sample for record in chosen if (sample := self._sample(record)) is not None]
            if not stream:
                return
            await asyncio.sleep(STATS_PERIOD)

    async def top(self, ref: str) -> ProcessTable:
        record = self._running(ref)
        return stats.top(await self._agent.context.runtime.pids(record.instance), now=self._now())

    def health(self, ref: str) -> HealthLog:
        return self._agent.prober.log(self._worker(ref).record)

    def _sample(self, record: Local) -> StatsSample | None:
        if not record.running or record.created is None:
            return None
        context = self._agent.context
        want = context.wishes.get(record.instance)
        return stats.sample(
            self._cgroups,
            record.instance,
            name=want.name if want is not None else short(record.instance),
            pid=record.created.pid,
            at=self._now(),
            host_memory=context.facts.memory,
            own_network=want is None or mode_of(want.spec) != "host",
        )

    # -- files --------------------------------------------------------------------------------------
    async def path_stat(self, ref: str, path: str) -> PathStat:
        return await self._files(ref).stat(path)

    def archive(self, ref: str, path: str) -> AsyncIterator[tuple[int, bytes]]:
        return self._files(ref).get(path)

    async def extract(self, ref: str, path: str, *, replace: bool) -> AttachSession:
        return await self._files(ref).put(path, replace=replace)

    def export(self, ref: str) -> AsyncIterator[tuple[int, bytes]]:
        return self._files(ref).export()

    def changes(self, ref: str) -> AsyncIterator[Change]:
        return self._files(ref).changes()

    async def commit(self, ref: str, request: CommitRequest) -> AsyncIterator[Progress]:
        worker = self._worker(ref)
        image = await self._files(ref).commit(request)
        self._agent.happened(worker.record, worker.want, "commit")
        yield Progress(status="done", image=image.id, host=self.facts().hostname)

    def _files(self, ref: str) -> Files:
        worker = self._worker(ref)
        return Files(self._agent.context, lambda: worker.record, lambda: worker.want)

    # -- volumes ------------------------------------------------------------------------------------
    def list_volumes(self) -> Sequence[VolumeInfo]:
        return [self.get_volume(volume.name) for volume in self._agent.context.volumes.all()]

    def get_volume(self, name: str) -> VolumeInfo:
        volumes = self._agent.context.volumes
        return VolumeInfo(
            volume=volumes.get(name),
            host=self.facts().hostname,
            mountpoint=volumes.path(name),
            used_by=tuple(volumes.used_by(name)),
        )

    async def create_volume(self, request: CreateVolume) -> VolumeInfo:
        made = await self._agent.context.volumes.create(request.spec, self._now())
        return self.get_volume(made.name)

    async def remove_volume(self, name: str, *, force: bool) -> None:
        await self._agent.context.volumes.remove(name, force=force)

    async def prune_volumes(self, *, all_unused: bool) -> Mapping[str, int]:
        return await self._agent.context.volumes.prune(all_unused=all_unused)

    # -- finding ------------------------------------------------------------------------------------
    def _now(self) -> float:
        return self._agent.context.clock.now()

    def _all(self) -> list[Local]:
        return [worker.record for worker in self._agent.workers.values()]

    async def _arriving(self, ref: str) -> Worker:
        """As `_worker`; a full id may still be on its way from the controller."""
        if is_id(ref):
            worker = await self._agent.arrival(InstanceId(ref), ARRIVAL)
            if worker is not None:
                return worker
        return self._worker(ref)

    def _worker(self, ref: str) -> Worker:
        wishes = self._agent.context.wishes
        names = ((i, wishes[i].name if i in wishes else "") for i in self._agent.workers)
        ident = InstanceId(resolve("container", ref, names))
        return self._agent.workers[ident]

    def _running(self, ref: str) -> Local:
        record = self._worker(ref).record
        if not record.running:
            raise WrongState(f"container {ref[:64]} is not running", hint=f"It is {record.phase}")
        return record


def _exit_of(record: Local) -> Exit:
    return Exit(exit_code=record.exit_code, oom_killed=record.oom_killed, message=record.message)


def _log_is_over(worker: Worker) -> bool:
    """Nothing more will be written: it ended and will not start again by itself."""
    record = worker.record
    return not record.live and record.phase.ended
