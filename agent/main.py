"""The agent's composition root: the one place that chooses concrete classes.

SIGTERM ends the agent and nothing else: containers, their network and their logs go on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web
from msgspec.structs import replace

from agent import cgroup, facts, fleetregistry, hostlimits, join, purge
from agent.buildroom import BuildRoom
from agent.builds import Builds, Doors, fleets_doors
from agent.config import AgentConfig
from agent.context import Context
from agent.dial import Dialer
from agent.fleetregistry import certificates
from agent.host import HostAgent
from agent.hostapi import HostApi
from agent.hostprocesses import SupervisedProcesses
from agent.journal import Journal
from agent.livesettings import LiveSettings
from agent.logins import asking
from agent.logs import LogReader
from agent.naming import NameService
from agent.oci import cgroups
from agent.offload import OffloadProbe, remembered
from agent.registrycopies import CopyStore, RegistryCopies
from agent.renewal import Renewal
from agent.rotation import LogRotator
from agent.runtime.conmon import ConmonRuntime
from agent.servedocker import docker_socket, path_beside
from agent.servepeers import Sharing
from agent.session import keep_session
from agent.underlay import Underlay
from agent.volumes import Volumes
from aio.clock import SystemClock
from aio.processes import booted
from aio.sdnotify import Notifier
from aio.service import Hooks, start_log, until_signalled
from aio.subprocess import run as command
from aio.supervisor import Supervisor, in_thread
from api.listen import serve_unix
from api.server import host_app, runner
from image.blobs import BlobStore
from image.drivers.choice import choose
from image.registry.client import RegistryClient
from image.registry.endpoints import RegistrySettings, settings
from image.registry.server.limits import Limits
from image.store import ImageStore
from model.ids import HostId
from net import backend
from net.drivers import load
from net.kernel.host import host_kernel
from net.kernel.offload import try_ways
from net.proxying import ProxyFeed
from net.reconciler import NetReconciler

log = logging.getLogger("flota.agent")
BLOCKED = 0.1
"""Seconds of a blocked event loop that are worth a line in the log."""


async def run(
    config: AgentConfig,
    ready: asyncio.Event | None = None,
    *,
    hooks: Hooks | None = None,
    reread: Callable[[], AgentConfig] | None = None,
) -> None:
    """Be this host's agent until cancelled; `ready` is set once everything that ran is adopted. `reread`: the
    settings as they are when `hooks` tell to reload them. Raises FlotaError when it can't start."""
    backend.add(load(config.network_drivers))
    state, run_dir = Path(config.state_dir), Path(config.run_dir)
    enrollment = join.load(state)
    journal = await Journal.open(state)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(journal.close)
        registry = RegistryClient(_registries(config))
        sharing = Sharing(enrollment, run_dir, registry)
        stack.push_async_callback(sharing.swarm.close)
        context = await _context(config, journal, enrollment, sharing, stack)
        tls = join.client_context(enrollment, run_dir)
        context.ask_login = asking(lambda: enrollment.controllers, tls)
        supervisor = await stack.enter_async_context(Supervisor("agent"))
        agent = HostAgent(context, journal, supervisor)
        _connect_volumes(context, agent)
        await agent.start()
        runtime = context.runtime
        assert isinstance(runtime, ConmonRuntime)
        logs = LogReader()
        stack.callback(logs.close)
        rotator = LogRotator(runtime.reopen_log)
        agent.watch_logs(logs, rotator)
        doors = partial(fleets_doors, _controllers(enrollment), (config.peer_port,))
        builds = await _builds(context, runtime, doors, stack)
        room = BuildRoom(builds, images_of(context).build_cache)
        context.room.keep_cache = images_of(context).build_cache.keep
        app = host_app(HostApi(agent, runtime.cgroups, logs, builds, room))
        served = await stack.enter_async_context(_serving(app, config.socket))
        server = served.server
        assert server is not None
        await stack.enter_async_context(docker_socket(agent, served, path_beside(config.socket)))
        dialer = Dialer(lambda: list(enrollment.controllers), tls, server)
        supervisor.start("dialer", dialer.run, restart=True)
        copies = RegistryCopies(
            CopyStore(state / "registry-copy", Limits()),
            lambda: fleetregistry.named(state),
            tls,
            lambda: context.certificate,
        )
        supervisor.start("registry copies", copies.run, restart=True)
        renewal = renewing(enrollment, agent, sharing, tls)
        supervisor.start("renewal", renewal.run, restart=True)
        supervisor.start("rotator", rotator.run, restart=True)
        supervisor.start("watchdog", _watchdog, restart=True)
        underlay = Underlay(
            lambda: context.facts, agent.resettle, address=config.address, controller=_controller(enrollment)
        )
        supervisor.start("underlay", underlay.run, restart=True)
        probe = OffloadProbe(context, journal, agent.replanned, agent.resettle, try_ways, agent.drifted)
        supervisor.start("offload", probe.run, restart=True)
        await sharing.serve(agent, supervisor, stack, port=config.peer_port, rate=config.peer_rate)
        log.info("agent of host %s is ready", context.facts.hostname)
        if hooks is not None:
            live = LiveSettings(
                config, reread or (lambda: config), agent, lambda now: registry.trust(_registries(now))
            )
            hooks.reload = live.reload
            hooks.ready.set()
        if ready is not None:
            ready.set()
        epoch = await _next_epoch(journal)
        urls = list(enrollment.controllers)
        session = keep_session(agent, epoch=epoch, urls=lambda: urls, context=tls, ended=dialer.renew)
        await _until_failure(journal, session)


def _registries(config: AgentConfig) -> RegistrySettings:
    """Raises InvalidInput."""
    return settings(
        insecure=config.insecure_registries,
        mirrors=config.registry_mirrors,
        certificates=(str(certificates(Path(config.state_dir))),),
    )


def renewing(enrollment: join.Enrollment, agent: HostAgent, sharing: Sharing, tls: ssl.SSLContext) -> Renewal:
    """All that shows who this host is, from its session to the doors for other hosts, is told."""
    context = agent.context

    async def shown(now: join.Enrollment) -> None:
        await sharing.renewed()
        context.certificate = now.certificate
        agent.reconnect.ring()

    contexts = (tls, *sharing.contexts)
    return Renewal(enrollment, context.state, context.run, context.clock, contexts, shown)


async def _until_failure(journal: Journal, session: Coroutine[Any, Any, None]) -> None:
    """Hold the session as long as the journal can be trusted. Raises what ended either."""

    async def lost() -> None:
        raise await journal.failed

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(session)
            group.create_task(lost())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _context(
    config: AgentConfig,
    journal: Journal,
    enrollment: join.Enrollment,
    sharing: Sharing,
    stack: contextlib.AsyncExitStack,
) -> Context:
    source = sharing.source
    state, run_dir = Path(config.state_dir), Path(config.run_dir)
    run_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    parent = cgroups.parent_of(
        config.cgroup_driver, config.cgroup_parent, booted=booted(), unified=cgroup.is_unified()
    )
    (run_dir / purge.PARENT_NOTE).write_text(parent)  # for a purge without an agent
    lacking = await in_thread(cgroup.provide, parent)
    choice = choose(state / "images", config.storage_driver)
    images = ImageStore(state / "images", driver_choice=choice, source=source)
    await images.open()
    source.shelf = images.shelf(BlobStore(state / "images" / "indexes"))
    await in_thread(source.shelf.open)
    images.share_builds(source, sharing.news.ring)
    stack.push_async_callback(images.close)
    proxy = ProxyFeed(run_dir)
    processes_cgroup = await _processes_cgroup(config)
    kernel = host_kernel(run_dir, own_cgroup=processes_cgroup)
    network = NetReconciler(run_dir, kernel=kernel, proxy=proxy, controllers=lambda: _controllers(enrollment))
    stack.push_async_callback(network.close)
    limits = hostlimits.measure()
    measured = await facts.measure(
        name=config.name or enrollment.name,
        address=config.address,
        controller=_controller(enrollment),
        driver=images.driver,
        labels=config.labels,
        cgroup_driver=cgroups.driver_of(parent),
    )
    volumes = Volumes(state / "volumes", journal, dict)
    volumes.open()
    return Context(
        host=HostId(enrollment.host_id),
        facts=remembered(
            journal,
            facts.boot_id(),
            replace(
                measured,
                wireguard=kernel.encrypts,
                behind_nat=config.behind_nat,
                warnings=(*measured.warnings, *lacking),
            ),
        ),
        images=images,
        runtime=ConmonRuntime(str(run_dir), cgroup_parent=parent, former_parents=_former(config)),
        network=network,
        volumes=volumes,
        names=NameService(run_dir),
        processes=SupervisedProcesses(
            run_dir, state, proxy=proxy, own_cgroup=processes_cgroup, unit=config.processes_unit
        ),
        clock=SystemClock(),
        state=state,
        run=run_dir,
        limits=limits,
        seccomp=hostlimits.load_seccomp(limits),
        cgroup_parent=parent,
        boot_id=facts.boot_id(),
        certificate=enrollment.certificate,
    )


def images_of(context: Context) -> ImageStore:
    assert isinstance(context.images, ImageStore)
    return context.images


async def _builds(
    context: Context, runtime: ConmonRuntime, doors: Doors, stack: contextlib.AsyncExitStack
) -> Builds:
    images = images_of(context)
    images.name = context.facts.hostname
    builds = Builds(
        context, runtime.programs, images.builds, images.build_cache, lambda: secrets.token_hex(32), doors
    )
    await builds.open()
    stack.push_async_callback(builds.close)
    return builds


async def _processes_cgroup(config: AgentConfig) -> str:
    """Where those go that outlive us: into a unit's, which only systemd can say, or one beside the
    containers'."""
    unit = config.processes_unit
    if not unit:
        return cgroups.processes_place(config.cgroup_parent)
    done = await command(["systemctl", "show", "--property=ControlGroup", "--value", unit], deadline=10)
    return done.stdout.decode().strip() or f"/system.slice/{unit}"


def _former(config: AgentConfig) -> tuple[str, ...]:
    """Where the other driver, or an agent that knew but one, would have put containers that still run."""
    wish = config.cgroup_parent
    return () if cgroups.is_slice(wish) else (wish, f"{wish.strip('/').replace('/', '-')}.slice")


def _controllers(enrollment: join.Enrollment) -> list[str]:
    return [url.removeprefix("https://") for url in enrollment.controllers]


def _controller(enrollment: join.Enrollment) -> str:
    """HOST:PORT of the first one."""
    return _controllers(enrollment)[0]


def _connect_volumes(context: Context, agent: HostAgent) -> None:
    context.volumes.users = agent.volume_users
    context.volumes.changed = agent.report_host


async def _next_epoch(journal: Journal) -> int:
    """Rises with every start, also when the clock went back."""
    epoch = max(journal.first_epoch + 1, int(time.time()))
    await journal.put("meta", "epoch", epoch)
    return epoch


@contextlib.asynccontextmanager
async def _serving(app: web.Application, socket: str) -> AsyncIterator[web.AppRunner]:
    served = runner(app)
    await served.setup()
    path = Path(socket)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        await serve_unix(served, str(path))
        yield served
    finally:
        await served.cleanup()
        path.unlink(missing_ok=True)


async def _watchdog() -> None:
    """Says when something held the event loop; heartbeats and starts wait for it."""
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(1.0)
        late = loop.time() - before - 1.0
        if late > BLOCKED:
            log.warning("the event loop was blocked for %.0f ms", late * 1000)


def main(config: AgentConfig, reread: Callable[[], AgentConfig] | None = None) -> None:
    """As a process of its own: until SIGTERM or SIGINT; SIGHUP has `reread` called. Logs go to standard
    error."""
    notifier = Notifier.taken()
    start_log(config.log_level)

    async def work(hooks: Hooks) -> None:
        await run(config, hooks=hooks, reread=reread)

    asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    asyncio.run(until_signalled(work, notifier, "agent"))
