"""The controller's composition root: the one place that chooses concrete classes.

Invariant: the API answers only while the store is led and the loop runs; whatever ends this ends all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import secrets
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from aiohttp import web

from aio.clock import SystemClock
from aio.supervisor import in_thread
from api.server import controller_app
from controller.config import ControllerConfig, check_config
from controller.controller import Controller
from controller.core import Options
from controller.pki import Authority, write_private
from controller.store.base import Store
from controller.store.memory import MemoryStore
from controller.store.sqlite import SqliteStore
from model.codec import encode_json
from model.errors import InUse, InvalidInput
from model.spec import Struct

log = logging.getLogger("flota.controller")
SHUTDOWN = 2.0
"""Seconds that open requests get when the controller stops."""


class Credentials(Struct):
    """`admin.json`: all that a command line on another machine needs. Whoever has it may do everything."""

    address: str
    fleet_id: str
    ca: str
    certificate: str
    key: str


async def run(config: ControllerConfig, ready: asyncio.Event | None = None) -> None:
    """Be the controller until cancelled; `ready` is set once the API answers. Raises FlotaError when it
    can't start."""
    check_config(config)
    store = await open_store(config)
    try:
        address = f"{advertised(config)}:{config.port}"
        options = Options(
            name=config.name,
            ping_every=config.ping_every,
            liveness=config.liveness,
            address_pools=config.address_pools,
            advertise=address if config.port else "",
        )
        keys = Path(config.state_dir) / "pki"
        controller = Controller(
            store,
            SystemClock(),
            lambda: secrets.token_hex(32),
            lambda fleet_id: Authority.open(keys, fleet_id),
            options,
        )
        async with controller, serving(config, controller):
            await in_thread(write_credentials, config, controller, address)
            log.info("the controller of fleet %s is ready", controller.info().name)
            if ready is not None:
                ready.set()
            await asyncio.Event().wait()
    finally:
        await store.close()


async def open_store(config: ControllerConfig) -> Store:
    """`sqlite:` (in the state folder unless it names one) or `memory:`."""
    scheme, _, where = (config.store or "sqlite:").partition(":")
    if scheme == "memory":
        return MemoryStore()
    return await SqliteStore.open(where or config.state_dir)


@contextlib.asynccontextmanager
async def serving(config: ControllerConfig, controller: Controller) -> AsyncIterator[None]:
    """The API on the unix socket, and over TLS if there is a port."""
    runner = web.AppRunner(controller_app(controller), access_log=None, shutdown_timeout=SHUTDOWN)
    await runner.setup()
    try:
        await _serve_socket(config, runner)
        if config.port:
            context = await in_thread(tls_context, config, controller.authority)
            site = web.TCPSite(runner, config.listen, config.port, ssl_context=context)
            try:
                await site.start()
            except OSError as error:
                raise InUse(
                    f"can't listen on {config.listen}:{config.port}: {error.strerror}",
                    hint="Choose another port, or stop what has it",
                ) from error
        yield
    finally:
        await runner.cleanup()
        Path(config.socket).unlink(missing_ok=True)


async def _serve_socket(config: ControllerConfig, runner: web.AppRunner) -> None:
    path = Path(config.socket)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if path.exists():
        if await _answers(path):
            raise InUse(f"another controller answers on {path}", hint="Stop it first")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _umask(0o117):  # from its first moment the socket is for its owner and group
            listener.bind(config.socket)
        os.chown(path, -1, _group(config.socket_group))
        await web.SockSite(runner, listener).start()
    except BaseException:
        listener.close()
        raise


async def _answers(path: Path) -> bool:
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_unix_connection(str(path))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def _group(name: str) -> int:
    if not name:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise InvalidInput(f"there is no group {name!r}", hint=f"groupadd {name}") from None


def tls_context(config: ControllerConfig, authority: Authority) -> ssl.SSLContext:
    """TLS 1.2 at least; a client certificate is optional here, because a joining host has none yet, and
    what may be done without one is the API's table."""
    folder = Path(config.state_dir) / "pki"
    local = ("localhost", "127.0.0.1", "::1", socket.gethostname())
    names = dict.fromkeys((advertised(config), *config.names, *local))
    pair = authority.controller(tuple(names))
    write_private(folder / "controller.key", pair.key)
    write_private(folder / "controller.pem", pair.certificate, mode=0o644)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(folder / "controller.pem", folder / "controller.key")
    context.load_verify_locations(cadata=authority.pem.decode())
    return context


def advertised(config: ControllerConfig) -> str:
    """Where hosts reach us: as configured, the address we listen on, or the one that faces outwards."""
    if config.advertise:
        return config.advertise
    if config.listen not in ("", "0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
        return config.listen
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a route look-up: connecting a datagram socket sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def write_credentials(config: ControllerConfig, controller: Controller, address: str) -> None:
    """Made once, and again when the address changes."""
    authority = controller.authority
    path = Path(config.state_dir) / "admin.json"
    if path.exists() and address.encode() in path.read_bytes():
        return
    pair = authority.admin("admin")
    credentials = Credentials(
        address=address,
        fleet_id=controller.info().fleet_id,
        ca=authority.pem.decode(),
        certificate=pair.certificate.decode(),
        key=pair.key.decode(),
    )
    write_private(path, encode_json(credentials))


def main(config: ControllerConfig) -> None:
    """As a process of its own: until SIGTERM or SIGINT. Logs go to standard error."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    async def until_signalled() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await run(config)

    asyncio.run(until_signalled())
