"""The controller's composition root: the one place that chooses concrete classes.

Invariant: the API answers only while the store is led and the loop runs; whatever ends this ends all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

from aiohttp import web

from aio.clock import Clock, SystemClock
from aio.durable import write_file
from aio.release import running
from aio.sdnotify import Notifier
from aio.service import Hooks, set_level, start_log, until_signalled
from aio.supervisor import Supervisor, in_thread
from aio.together import together
from api.docker.app import add_docker, docker_runner, fleet_identity
from api.docker.early import WatchedSite
from api.docker.state import State
from api.listen import serve_tls, serve_unix, server_context
from api.server import controller_app, runner
from controller import registry
from controller.config import ControllerConfig, check_config, docker_socket, registry_place
from controller.controller import Controller
from controller.options import Options
from controller.pki import Authority, due
from controller.registrycopies import Copies
from controller.store.base import Store
from controller.store.memory import MemoryStore
from controller.store.sqlite import SqliteStore
from controller.trial import Trial
from model.codec import decode_json, encode_json
from model.errors import Damaged, FlotaError, InvalidInput, Unavailable, Unsupported
from model.spec import Struct
from model.whereabouts import joined
from net import backend
from net.drivers import load

log = logging.getLogger("flota.controller")
LookUp = Callable[[str], Awaitable[Iterable[str]]]
"""The addresses of a name."""
LOOK_UP = 5.0
"""Seconds for one."""
LOOK_EVERY = 3600.0
"""Seconds between looks at how old our certificates are."""
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 (compared, not bound)


class Credentials(Struct):
    """`admin.json`: all that a command line on another machine needs. Whoever has it may do everything."""

    address: str
    fleet_id: str
    ca: str
    certificate: str
    key: str


async def run(
    config: ControllerConfig,
    ready: asyncio.Event | None = None,
    *,
    hooks: Hooks | None = None,
    reread: Callable[[], ControllerConfig] | None = None,
) -> None:
    """Be the controller until cancelled; `ready` is set once the API answers. `reread`: the settings as they
    are when `hooks` tell to reload them. Raises FlotaError when it can't start."""
    check_config(config)
    backend.add(load(config.network_drivers))
    store = await open_store(config)
    try:
        address = joined(advertised(config), config.port)
        options = Options(
            name=config.name,
            ping_every=config.ping_every,
            liveness=config.liveness,
            address_pools=config.address_pools,
            advertise=address if config.port else "",
            registry=registry_address(config),
        )
        keys = Path(config.state_dir) / "pki"
        controller = Controller(
            store,
            SystemClock(),
            lambda: secrets.token_hex(32),
            lambda fleet_id: Authority.open(keys, fleet_id),
            options,
            Trial(Path(config.state_dir), running()),
        )
        async with (
            controller,
            serving(config, controller) as context,
            Supervisor("certificates") as beside,
        ):
            await in_thread(write_credentials, config, controller, address)
            own = KeptCertificates(config, controller, context, address)
            beside.start("certificates", own.run, restart=True)
            log.info("the controller of fleet %s is ready", controller.info().name)
            if hooks is not None:
                hooks.heart = store.beat
                hooks.reload = lambda: reload(config, (reread or (lambda: config))(), controller, context)
                hooks.ready.set()
            if ready is not None:
                ready.set()
            await asyncio.Event().wait()
    finally:
        await store.close()


class KeptCertificates:
    """The controller's own, and that of admin.json: made anew when two thirds of their lives are over."""

    def __init__(
        self,
        config: ControllerConfig,
        controller: Controller,
        context: ssl.SSLContext | None,
        address: str,
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._controller = controller
        self._context = context
        self._address = address
        self._clock = clock or SystemClock()

    async def run(self) -> None:
        """For ever. What fails is told, and tried again with the next look."""
        while True:
            await self._clock.sleep(LOOK_EVERY)
            try:
                await self._look(self._clock.now())
            except (OSError, ValueError, FlotaError) as error:
                log.error("a certificate of this controller is not renewed: %s", error)

    async def _look(self, now: float) -> None:
        await in_thread(write_credentials, self._config, self._controller, self._address, now)
        if self._context is None:
            return
        served = await in_thread((Path(self._config.state_dir) / "pki" / "controller.pem").read_bytes)
        if now >= due(served):
            await in_thread(certify, self._config, self._controller.authority, self._context)
            log.info("the controller has a new certificate")


async def reload(
    before: ControllerConfig, now: ControllerConfig, controller: Controller, context: ssl.SSLContext | None
) -> str:
    """A new server certificate, for connections from now on, and another log level; what became of it, in
    words. Raises FlotaError."""
    set_level(now.log_level)
    if context is not None:
        await in_thread(certify, before, controller.authority, context)
    kept = [name for name in before.__struct_fields__ if name != "log_level"]
    later = [name for name in kept if getattr(before, name) != getattr(now, name)]
    said = "a new certificate" if context is not None else "log level"
    words = ", ".join(name.replace("_", " ") for name in later)
    return f"{said}; with the next start: {words}" if later else said


async def open_store(config: ControllerConfig) -> Store:
    """`sqlite:` (in the state folder unless it names one) or `memory:`."""
    scheme, _, where = (config.store or "sqlite:").partition(":")
    if scheme == "memory":
        return MemoryStore()
    return await SqliteStore.open(where or config.state_dir)


@contextlib.asynccontextmanager
async def serving(config: ControllerConfig, controller: Controller) -> AsyncIterator[ssl.SSLContext | None]:
    """The API over TLS if there is a port, and on the unix socket: who finds that finds all of it open.
    Yields what TLS connections are made of."""
    ca = controller.authority.pem.decode()
    fleet_id, state = controller.info().fleet_id, State()
    both = controller_app(controller, fleet_id=fleet_id, ca=ca)
    add_docker(both, controller, fleet_identity(fleet_id), state)
    app, docker = runner(both), docker_runner(controller, fleet_identity(fleet_id), state)
    await app.setup()
    await docker.setup()
    context: ssl.SSLContext | None = None
    stack = contextlib.AsyncExitStack()
    sockets = (config.socket, docker_socket(config))
    try:
        if config.port or config.registry:
            context = await in_thread(tls_context, config, controller.authority)
            if config.port:
                await serve_tls(app, config.listen, config.port, context)
            if config.registry:
                await _serve_registry(config, controller, context, stack)
        folder = Path(config.socket).parent
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        await serve_unix(docker, sockets[1], group=config.socket_group, site=WatchedSite)
        await serve_unix(app, sockets[0], group=config.socket_group)
        try:
            yield context
        finally:
            for path in sockets:
                Path(path).unlink(missing_ok=True)
    finally:
        await stack.aclose()
        await state.close()
        await docker.cleanup()
        await app.cleanup()


async def _serve_registry(
    config: ControllerConfig,
    controller: Controller,
    context: ssl.SSLContext,
    stack: contextlib.AsyncExitStack,
) -> None:
    """Or in its place why there is none: images that can't be had are no reason to run no fleet."""
    try:
        own = await own_addresses(config, _looked_up)
        controller.registry = await stack.enter_async_context(_registry(config, controller, context, own))
    except (Damaged, Unsupported, Unavailable) as error:
        log.error("the controller starts without its registry: %s", error)
        listen, port = registry_place(config.registry)
        await stack.enter_async_context(_refusing(error, listen, port, context))


@contextlib.asynccontextmanager
async def _refusing(
    error: FlotaError, listen: str, port: int, context: ssl.SSLContext
) -> AsyncIterator[None]:
    """503 to every request, in the form of the distribution specification ("Error Codes"), which clients show
    to people. Raises AlreadyExists when the port is in use."""
    words = f"this registry is not served: {error}"

    async def refuse(request: web.Request) -> web.Response:
        del request
        return web.json_response({"errors": [{"code": "UNKNOWN", "message": words}]}, status=503)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    served = runner(app)
    await served.setup()
    try:
        await serve_tls(served, listen, port, context)
        yield
    finally:
        await served.cleanup()


async def own_addresses(config: ControllerConfig, look_up: LookUp, within: float = LOOK_UP) -> frozenset[str]:
    """By which a host is known that may have its disk in common with us; names that can't be looked up soon
    are told: a copy of the registry may then come to lie on its own disk."""
    names = {advertised(config), registry_place(config.registry)[0], socket.gethostname()} - {*EVERYWHERE}

    async def of(name: str) -> set[str]:
        try:
            async with asyncio.timeout(within):
                return {name, *await look_up(name)}
        except TimeoutError:
            log.warning("where %s is, is not known within %g s", name, within)
        except (OSError, UnicodeError):  # a name that is not known here is of no use in the comparison
            pass
        return {name}

    return frozenset().union(*await together(of(name) for name in names))


async def _looked_up(name: str) -> list[str]:
    """Raises OSError, UnicodeError (of a name that can't be one in the DNS)."""
    found = await asyncio.get_running_loop().getaddrinfo(name, None)
    return [str(entry[4][0]) for entry in found]


def _registry(
    config: ControllerConfig, controller: Controller, context: ssl.SSLContext, own: frozenset[str]
) -> contextlib.AbstractAsyncContextManager[Copies]:
    listen, port = registry_place(config.registry)
    return registry.serving(
        Path(config.state_dir) / "registry",
        controller,
        SystemClock(),
        listen=listen,
        port=port,
        context=context,
        anonymous_pull=config.registry_anonymous_pull,
        replicas=config.registry_replicas,
        own=own,
    )


def registry_address(config: ControllerConfig) -> str:
    """The registry's name in references to images, host:port: where it listens, or where hosts reach the
    controller. Empty without one."""
    if not config.registry:
        return ""
    listen, port = registry_place(config.registry)
    return joined(listen if listen not in EVERYWHERE else advertised(config), port)


def tls_context(config: ControllerConfig, authority: Authority) -> ssl.SSLContext:
    """A fresh server certificate at each start, as names and addresses change."""
    certificate, key = new_pair(config, authority)
    return server_context(certificate=certificate, key=key, ca=str(Path(config.state_dir) / "pki" / "ca.pem"))


def certify(config: ControllerConfig, authority: Authority, context: ssl.SSLContext) -> None:
    """A fresh certificate for one that serves; connections that stand keep theirs."""
    context.load_cert_chain(*new_pair(config, authority))


def new_pair(config: ControllerConfig, authority: Authority) -> tuple[str, str]:
    """Files of a certificate for the names and addresses that this host has now, and of its key."""
    folder = Path(config.state_dir) / "pki"
    local = ("localhost", "127.0.0.1", "::1", socket.gethostname())
    names = dict.fromkeys((advertised(config), *config.names, *local))
    if config.registry and (own := registry_place(config.registry)[0]) not in EVERYWHERE:
        names[own] = None
    pair = authority.controller(tuple(names))
    certificate, key = folder / "controller.pem", folder / "controller.key"
    write_file(key, pair.key)
    write_file(certificate, pair.certificate, mode=0o644)
    return str(certificate), str(key)


def advertised(config: ControllerConfig) -> str:
    """Where hosts reach us: as configured, the address we listen on, or the one that faces outwards."""
    if config.advertise:
        return config.advertise
    if config.listen not in EVERYWHERE:
        return config.listen
    for family, anybody in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((anybody, 9))  # a route look-up: connecting a datagram socket sends nothing
            return str(probe.getsockname()[0])
    return "127.0.0.1"


def write_credentials(
    config: ControllerConfig, controller: Controller, address: str, now: float | None = None
) -> None:
    """Made once, and again when the address changes or two thirds of its certificate's life are over."""
    authority = controller.authority
    path = Path(config.state_dir) / "admin.json"
    if _are_good(path, address, SystemClock().now() if now is None else now):
        return
    pair = authority.admin("admin")
    credentials = Credentials(
        address=address,
        fleet_id=controller.info().fleet_id,
        ca=authority.pem.decode(),
        certificate=pair.certificate.decode(),
        key=pair.key.decode(),
    )
    write_file(path, encode_json(credentials))


def _are_good(path: Path, address: str, now: float) -> bool:
    try:
        found = decode_json(path.read_bytes(), Credentials, path.name)
        return found.address == address and now < due(found.certificate.encode())
    except (FileNotFoundError, InvalidInput, ValueError):
        return False


def main(config: ControllerConfig, reread: Callable[[], ControllerConfig] | None = None) -> None:
    """As a process of its own: until SIGTERM or SIGINT; SIGHUP has `reread` called. Logs go to standard
    error."""
    notifier = Notifier.taken()
    start_log(config.log_level)

    async def work(hooks: Hooks) -> None:
        await run(config, hooks=hooks, reread=reread)

    asyncio.run(until_signalled(work, notifier, "controller"))
