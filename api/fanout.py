"""One request to many hosts: lists joined, progress merged, an upload copied to each.

Invariant: one host's failure is told by its name and does not hinder the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from aio.supervisor import Supervisor
from api.channels import Pipe
from api.fanin import merge
from api.hostcall import Hosts as Pipes
from api.hostcall import ask, ask_for, head, read_reply
from model.codec import decode_json
from model.errors import ErrorBody, FlotaError, Internal, Unavailable
from model.ids import HostId
from model.image import Progress

T = TypeVar("T")
Hosts = Sequence[tuple[HostId, str]]
UPLOAD_CHUNK = 1 << 18


class Fleet(Pipes, Protocol):
    """Who knows hosts, and has ways to them: a controller."""

    def ready_hosts(self) -> Hosts:
        """(id, name) of every host in session."""
        ...

    def locate_host(self, ref: str) -> HostId:
        """Raises NotFound."""
        ...


def hosts_for(port: Fleet, ref: str) -> Hosts:
    """The host that `ref` names, or every ready one. Raises NotFound, Unavailable."""
    ready = port.ready_hosts()
    if not ref:
        if not ready:
            raise Unavailable("no host is ready", hint="See `flota node ls`")
        return ready
    ident = port.locate_host(ref)
    found = [(host, name) for host, name in ready if host == ident]
    if not found:
        raise Unavailable(f"host {ref} is not ready", hint="See `flota node ls`")
    return found


class Outcome(msgspec.Struct, frozen=True):
    """What hosts answered, and why others did not."""

    replies: Sequence[tuple[str, Any]]
    errors: Sequence[tuple[str, FlotaError]]

    def or_raise(self) -> Sequence[tuple[str, Any]]:
        """The replies; the first error if there are none."""
        if not self.replies and self.errors:
            name, error = self.errors[0]
            raise type(error)(f"{name}: {error.message}", hint=error.hint)
        return self.replies


async def each(
    port: Pipes, hosts: Hosts, method: str, path: str, type_: type[T], body: bytes = b""
) -> Outcome:
    """Ask all at once; replies are `type_` values, in the order of the hosts."""
    replies: dict[str, T] = {}
    errors: dict[str, FlotaError] = {}

    async def one(host: HostId, name: str) -> None:
        try:
            replies[name] = await ask_for(port, host, method, path, type_, send=body)
        except FlotaError as error:
            errors[name] = error

    async with asyncio.TaskGroup() as group:
        for host, name in hosts:
            group.create_task(one(host, name))
    names = [name for _, name in hosts]
    return Outcome(
        replies=[(n, replies[n]) for n in names if n in replies],
        errors=[(n, errors[n]) for n in names if n in errors],
    )


def progress(port: Pipes, hosts: Hosts, path: str, *, login: str = "") -> AsyncIterator[Progress]:
    """POST to each host; all lines of progress, each with its host's name. A failure is a line. `login` as in
    `ask`."""
    return merge([told(port, host, name, path, login) for host, name in hosts])


async def told(
    port: Pipes, host: HostId, name: str, path: str, login: str = "", body: bytes = b""
) -> AsyncIterator[Progress]:
    """Of one host."""
    try:
        async with ask(port, host, "POST", path, body, login=login) as reply:
            async for line in reply.lines():
                yield _named(line, name)
    except FlotaError as error:
        yield failed(name, error)


def failed(host: str, error: FlotaError) -> Progress:
    return Progress(status="failed", host=host, error=str(error), error_code=error.code)


def _named(line: bytes, host: str) -> Progress:
    raw = decode_json(line, dict[str, Any], "a host's progress")
    try:
        if isinstance(raw.get("error"), dict):
            return failed(host, msgspec.convert(raw["error"], ErrorBody).to_error())
        return msgspec.structs.replace(msgspec.convert(raw, Progress), host=host)
    except msgspec.ValidationError as error:
        raise Internal(f"the host's progress can't be read: {error}") from error


class Upload:
    """One body copied to many hosts as it arrives, at the pace of the slowest; failing ones drop out."""

    def __init__(self, port: Pipes, hosts: Hosts, path: str) -> None:
        self._port = port
        self._hosts = hosts
        self._path = path
        self._alive: dict[str, Pipe] = {}
        self._lines: dict[tuple[str, str], Progress] = {}
        """Latest line per host and layer: while the client sends, it does not read."""
        self._ends: list[Progress] = []

    async def run(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[Progress]:
        """Send all of it, then give what each host said. Stops reading once no host is left."""
        async with Supervisor("upload") as readers:
            try:
                for host, name in self._hosts:
                    await self._open(host, name)
                    if name in self._alive:
                        readers.start(name, lambda name=name: self._read(name))  # type: ignore[misc]
                await self._copy(chunks)
                for _, name in self._hosts:
                    await readers.join(name)
            finally:
                for pipe in self._alive.values():
                    pipe.writer.close()
        for line in (*self._lines.values(), *self._ends):
            yield line

    async def _open(self, host: HostId, name: str) -> None:
        try:
            pipe = await self._port.open_pipe(host)
        except FlotaError as error:
            self._ends.append(failed(name, error))
            return
        headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/octet-stream"}
        pipe.writer.write(head("POST", self._path, {**headers, "Connection": "close"}))
        self._alive[name] = pipe

    async def _copy(self, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            if chunk:
                await self._write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            if not self._alive:
                return
        await self._write(b"0\r\n\r\n")

    async def _write(self, data: bytes) -> None:
        for pipe in self._alive.values():
            pipe.writer.write(data)
        for pipe in list(self._alive.values()):
            with contextlib.suppress(OSError):
                await pipe.writer.drain()

    async def _read(self, name: str) -> None:
        pipe = self._alive[name]
        try:
            reply = await (await read_reply(pipe)).checked()
            async for text in reply.lines():
                line = _named(text, name)
                if line.error or line.image:
                    self._ends.append(line)
                else:
                    self._lines[(name, line.id)] = line
        except FlotaError as error:
            self._ends.append(failed(name, error))
        finally:
            self._alive.pop(name, None)
            pipe.writer.close()


def per_host(outcome: Outcome) -> Mapping[str, str]:
    """A reply header that tells which hosts are missing in a joined list: printable ASCII, whatever they
    said (RFC 9110, 5.5)."""
    if not outcome.errors:
        return {}
    text = "; ".join(f"{name}: {error.message}" for name, error in outcome.errors)
    line = " ".join(text[:4000].split())
    return {"Flota-Warning": "".join(char if " " <= char <= "~" else "?" for char in line)}
