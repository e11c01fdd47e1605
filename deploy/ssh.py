"""Transport over SSH, by asyncssh; its only importer but for `deploy.sshkeys`.

A host is talked to only if its key is known: by known_hosts, or by a fingerprint that the operator gave. No
agent is forwarded, no password asked for, nothing of ~/.ssh/config read unless it was named. Every wait has
an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncssh

from aio.subprocess import Heard
from aio.supervisor import Supervisor
from aio.together import together
from deploy import transport as t
from deploy.inventory import SSH_PORT, Target, parse_target
from model.errors import (
    CommandFailed,
    DeadlineExceeded,
    FlotaError,
    InvalidInput,
    Unauthenticated,
    Unavailable,
)
from model.spec import Struct

CONNECT_DEADLINE, LOGIN_DEADLINE = 15.0, 20.0
KEEPALIVE, UNANSWERED = 10.0, 3
"""Seconds between questions whether the host is there, and how many may go unanswered."""
PUT_DEADLINE = 900.0
CHECK_DEADLINE = 20.0


class SshSettings(Struct):
    """What holds for all hosts of a run."""

    known_hosts: tuple[str, ...] = ()
    """Files; none: the user's and the machine's."""
    config: str = ""
    """An ssh_config file; empty: none is read."""


async def connect(target: Target, settings: SshSettings | None = None) -> SshTransport:
    """Log in. Raises Unavailable, DeadlineExceeded, Unauthenticated (the host or we are not who is expected)
    or InvalidInput (a key file)."""
    settings = settings or SshSettings()
    async with contextlib.AsyncExitStack() as stack:
        tunnel = None
        if target.jump:
            tunnel = await _open(_jump(target), settings)
            stack.push_async_callback(_closed, tunnel)
        connection = await _open(target, settings, tunnel)
        stack.push_async_callback(_closed, connection)
        return SshTransport(str(target), connection, stack.pop_all())


def _jump(target: Target) -> Target:
    from msgspec.structs import replace

    return replace(parse_target(target.jump), identity=target.identity)


async def _open(
    target: Target, settings: SshSettings, tunnel: asyncssh.SSHClientConnection | None = None
) -> asyncssh.SSHClientConnection:
    where, watch = str(target), _KeyWatch(target.host_key)
    options: dict[str, Any] = {
        "known_hosts": ([], [], []) if target.host_key else _known_hosts(settings),
        "client_factory": lambda: watch,
        "config": [settings.config] if settings.config else None,
        "tunnel": tunnel if tunnel is not None else (),
        "connect_timeout": CONNECT_DEADLINE,
        "login_timeout": LOGIN_DEADLINE,
        "keepalive_interval": KEEPALIVE,
        "keepalive_count_max": UNANSWERED,
        "preferred_auth": "publickey",
        "agent_forwarding": False,
        "compression_algs": None,
    }
    if target.port:
        options["port"] = target.port
    if target.user or not settings.config:
        options["username"] = target.user or getpass.getuser()
    if target.identity:
        options["client_keys"] = [_readable(where, os.path.expanduser(name)) for name in target.identity]
    try:
        async with asyncio.timeout(CONNECT_DEADLINE + LOGIN_DEADLINE):
            return await asyncssh.connect(target.host, **options)
    except asyncssh.HostKeyNotVerifiable as error:
        raise _stranger(target, settings, watch, error) from None
    except asyncssh.PermissionDenied as error:
        raise Unauthenticated(
            f"{where}: it takes none of the keys we have for {options.get('username', 'this user')}",
            hint="Name the right user, name a key with -i, or load it into ssh-agent",
        ) from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, asyncssh.ConfigParseError) as error:
        raise InvalidInput(f"{where}: {error}", hint="Keys with a passphrase: ssh-add FILE") from error
    except TimeoutError as error:
        raise DeadlineExceeded(f"{where}: it does not answer SSH in time", hint=_REACH) from error
    except (OSError, asyncssh.Error) as error:
        raise Unavailable(f"{where}: SSH can't be had there: {_reason(error)}", hint=_REACH) from error
    except ValueError as error:  # known_hosts with a line that is none
        raise InvalidInput(f"{where}: known_hosts: {error}") from error


def _readable(where: str, identity: str) -> str:
    try:
        with open(identity, "rb"):
            return identity
    except OSError as error:
        raise InvalidInput(f"{where}: the key {identity}: {error.strerror}") from error


_REACH = "Check the address and the port, and that sshd runs there"


class _KeyWatch(asyncssh.SSHClient):
    """Takes the key with the fingerprint that was given, and remembers what a stranger showed."""

    def __init__(self, pin: str) -> None:
        self._pin = pin
        self.shown = ""
        self.kind = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.shown = key.get_fingerprint("sha256")
        self.kind = key.get_algorithm()
        return bool(self._pin) and self.shown == self._pin


def _known_hosts(settings: SshSettings) -> Any:
    files = settings.known_hosts or ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
    found = [path for path in map(os.path.expanduser, files) if os.access(path, os.R_OK)]
    return found or ([], [], [])


def _stranger(target: Target, settings: SshSettings, watch: _KeyWatch, error: Exception) -> FlotaError:
    where = str(target)
    shows = f"{watch.shown} ({watch.kind})" if watch.shown else "a key that can't be read"
    if target.host_key:
        return Unauthenticated(
            f"{where}: the host shows {shows}, not the key {target.host_key} that was given",
            hint="Another machine answers there, or the fingerprint is of another of its keys",
        )
    port = target.port if target.port != SSH_PORT else 0
    trusted = asyncssh.match_known_hosts(_known_hosts(settings), target.host, "", port or None)
    if not watch.shown:
        return Unauthenticated(f"{where}: its key can't be verified: {_reason(error)}")
    if trusted[0]:
        known = ", ".join(sorted(key.get_fingerprint("sha256") for key in trusted[0]))
        return Unauthenticated(
            f"{where}: the host's key has CHANGED: it shows {shows}, known_hosts has {known}",
            hint=f"Somebody may be in between. If it was installed anew: ssh-keygen -R {_entry(target)}",
        )
    return Unauthenticated(
        f"{where}: this host is not known yet; it shows {shows}",
        hint="Compare that with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host itself, then "
        f"say it with --host-key {watch.shown}, or log in once with ssh",
    )


def _entry(target: Target) -> str:
    return target.host if target.port in (0, SSH_PORT) else f"'[{target.host}]:{target.port}'"


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncssh.DisconnectError):
        return error.reason or type(error).__name__
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno:
        return os.strerror(error.errno)  # asyncio's own words are those of a program
    return getattr(error, "strerror", "") or str(error) or type(error).__name__


class SshTransport:
    """See `deploy.transport.Transport`."""

    def __init__(
        self, host: str, connection: asyncssh.SSHClientConnection, stack: contextlib.AsyncExitStack
    ) -> None:
        self._host = host
        self._connection = connection
        self._stack = stack
        self._sudo: bool | None = None

    @property
    def host(self) -> str:
        return self._host

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float, root: bool = True
    ) -> t.Finished:
        async def feed(pipe: asyncssh.SSHWriter[bytes]) -> None:
            pipe.write(stdin)

        line = t.shell_line(argv, sudo=root and await self._needs_sudo())
        return await self._run(line, feed, timeout, os.path.basename(argv[0]))

    async def stream(self, argv: Sequence[str], *, timeout: float, root: bool = True, heard: Heard) -> int:
        line = t.shell_line(argv, sudo=root and await self._needs_sudo())
        done = await self._run(line, None, timeout, os.path.basename(argv[0]), heard)
        if done.err:
            heard(2, done.err + b"\n")
        return done.code

    async def put(self, source: Path, target: str, mode: int) -> None:
        digest = await asyncio.to_thread(t.file_digest, source)

        async def feed(pipe: asyncssh.SSHWriter[bytes]) -> None:
            with open(source, "rb") as file:
                while chunk := file.read(t.CHUNK):
                    pipe.write(chunk)
                    await pipe.drain()

        line = t.shell_line(t.put_argv(target, mode, digest), sudo=await self._needs_sudo())
        done = await self._run(line, feed, PUT_DEADLINE, f"copying {source.name}")
        if done.code:
            raise t.put_failure(self.host, target, done)

    @contextlib.asynccontextmanager
    async def held(self, argv: Sequence[str], *, timeout: float) -> AsyncIterator[str]:
        line = t.shell_line(argv, sudo=await self._needs_sudo())
        with self._told():
            process = await self._connection.create_process(line, encoding=None)
        try:
            with self._told():
                try:
                    async with asyncio.timeout(timeout):
                        first = await process.stdout.readline()
                except TimeoutError:
                    raise DeadlineExceeded(f"{self.host}: {argv[0]} says nothing") from None
            async with Supervisor(self.host) as beats:
                beats.start("beat", lambda: _beat(process))
                yield first.decode(errors="replace").strip()
        finally:
            process.close()

    async def close(self) -> None:
        await self._stack.aclose()

    # -- parts --------------------------------------------------------------------------------------
    async def _needs_sudo(self) -> bool:
        """Whether root is by sudo. Raises Forbidden where it is not to be had."""
        if self._sudo is None:
            line = t.shell_line(["sh", "-c", t.MAY_BE_ROOT], sudo=False)
            done = await self._run(line, None, CHECK_DEADLINE, "looking for sudo")
            if failure := t.root_failure(self.host, done):
                raise failure
            self._sudo = done.code == t.BY_SUDO
        return self._sudo

    async def _run(
        self,
        line: str,
        feed: Callable[[Any], Any] | None,
        timeout: float,
        what: str,
        heard: Heard | None = None,
    ) -> t.Finished:
        with self._told():
            try:
                async with asyncio.timeout(timeout):
                    process = await self._connection.create_process(line, encoding=None)
                    try:
                        return await self._finished(process, feed, heard)
                    finally:
                        process.close()
            except TimeoutError:
                raise DeadlineExceeded(f"{self.host}: {what} did not end within {timeout:g} s") from None

    async def _finished(
        self,
        process: asyncssh.SSHClientProcess[bytes],
        feed: Callable[[Any], Any] | None,
        heard: Heard | None,
    ) -> t.Finished:
        both = (_drained(process.stdout, 1, heard), _drained(process.stderr, 2, heard))
        _, (out, err) = await together((_fed(process.stdin, feed), together(both)))
        await process.wait_closed()
        if process.exit_signal is not None:
            return t.Finished(code=128, out=out, err=err or f"ended by {process.exit_signal[0]}".encode())
        if process.exit_status is None:
            raise Unavailable(f"{self.host}: the connection broke")
        return t.Finished(code=process.exit_status, out=out, err=err)

    @contextlib.contextmanager
    def _told(self) -> Any:
        """Errors of SSH's as ours."""
        try:
            yield
        except asyncssh.ChannelOpenError as error:
            if self._connection.is_closed():
                raise Unavailable(f"{self.host}: the connection broke") from error
            raise CommandFailed(f"{self.host}: sshd opens no session: {error.reason}") from error
        except (asyncssh.Error, ConnectionError) as error:
            raise Unavailable(f"{self.host}: the connection broke: {_reason(error)}") from error


async def _fed(pipe: asyncssh.SSHWriter[bytes], feed: Callable[[Any], Any] | None) -> None:
    """A program that ends early hears no more."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        if feed is not None:
            await feed(pipe)
        await pipe.drain()
        pipe.write_eof()


async def _drained(stream: asyncssh.SSHReader[bytes], number: int, heard: Heard | None) -> bytes:
    kept = bytearray()
    while chunk := await stream.read(t.CHUNK):
        if heard is not None:
            heard(number, chunk)
        elif len(kept) < t.OUTPUT_CAP:
            kept += chunk[: t.OUTPUT_CAP - len(kept)]
    return bytes(kept)


async def _beat(process: asyncssh.SSHClientProcess[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError, asyncssh.Error):
        while True:
            process.stdin.write(b"\n")
            await asyncio.sleep(t.BEAT)


async def _closed(connection: asyncssh.SSHClientConnection) -> None:
    """Politely, but not for long."""
    connection.close()
    with contextlib.suppress(TimeoutError, asyncssh.Error, OSError):
        async with asyncio.timeout(2.0):
            await connection.wait_closed()
    connection.abort()
