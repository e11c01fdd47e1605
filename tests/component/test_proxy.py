"""The proxy at work on loopback: headers, ends of connections, backends that come and go, bounds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from aio.supervisor import Supervisor
from model.codec import decode_json
from net.proxy.header import Header, Version, decode
from net.proxy.listen import Listeners
from net.proxy.serve import Proxy
from net.proxy.state import VERSION, Backend, Port, ProxyState, encode
from net.supervise.files import SERVED, STATE, Served, mark_of
from net.supervise.place import Place
from tests.support.ports import free_port
from tests.support.waiting import until

HERE, SIX, ELSEWHERE = "127.0.0.77", "::1", "127.0.0.78"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class BackendServer:
    """Reads the header of each connection, then lets `serve` go on. `headers` are those that came."""

    def __init__(self, name: bytes, address: str, serve: Serve | None) -> None:
        self.name, self.address, self.port, self.serve = name, address, free_port(), serve
        self.headers: list[Header] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server | None = None

    @property
    def backend(self) -> Backend:
        return Backend(address=self.address, port=self.port)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        data = b""
        with contextlib.suppress(OSError):
            while (found := decode(data)) is None:
                chunk = await reader.read(1)
                if not chunk:
                    break
                data += chunk
            else:
                self.headers.append(found[0])
                if self.serve is not None:
                    await self.serve(reader, writer)
                else:
                    writer.write(self.name)
                    writer.write(await reader.read())
                    writer.write_eof()
        if self.serve is None:
            writer.close()


class ProxyLab:
    """A proxy in this process; `put` gives it a state and waits for its verdict."""

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.port = folder, free_port()
        self.place = Place(str(folder), VERSION)
        self.listeners = Listeners(most=most)
        self.proxy = Proxy(self.place, self.listeners, retry=0.05)
        self.stack = contextlib.AsyncExitStack()

    async def backend(
        self, name: bytes = b"one", address: str = HERE, serve: Serve | None = None
    ) -> BackendServer:
        made = BackendServer(name, address, serve)
        made.server = await asyncio.start_server(made.converse, address, made.port)
        self.stack.push_async_callback(_close, made)
        return made

    async def serve(self, *backends: BackendServer, header: Version = "v2", **more: object) -> Served:
        found = tuple(backend.backend for backend in backends)
        port = Port(port=self.port, header=header, backends=found, **more)  # type: ignore[arg-type]
        return await self.put(ProxyState(ports=(port,)))

    async def put(self, state: ProxyState | bytes) -> Served:
        data = state if isinstance(state, bytes) else encode(state)
        aside = self.folder / "new"
        aside.write_bytes(data)
        os.replace(aside, self.folder / STATE)

        def told() -> Served | None:
            text = (self.folder / SERVED).read_bytes()
            verdict = decode_json(text, Served) if text else None
            return verdict if verdict is not None and verdict.mark == mark_of(data) else None

        found = await until(told, deadline=5, what="a verdict")
        assert isinstance(found, Served)
        return found

    async def connect(
        self, source: str = "", target: str = HERE
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        local = (source, 0) if source else None
        made = await asyncio.open_connection(target, self.port, local_addr=local, limit=1 << 20)
        self.stack.push_async_callback(_shut, made[1])
        return made

    async def ask(self, data: bytes = b"", source: str = "", target: str = HERE) -> bytes:
        """All that comes back after `data` and an end."""
        reader, writer = await self.connect(source, target)
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()

    async def resets(self, source: str = "", target: str = HERE) -> bool:
        """Whether a connection is taken and reset; it may be before `connect` has returned."""
        try:
            reader, _ = await self.connect(source, target)
        except ConnectionResetError:
            return True
        return await is_reset(reader)


async def _close(server: BackendServer) -> None:
    assert server.server is not None
    server.server.close()
    for writer in server.writers:
        await _shut(writer)


async def _shut(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def proxy_lab(folder: Path, most: int = 100) -> AsyncIterator[ProxyLab]:
    made = ProxyLab(folder, most)
    async with Supervisor("test") as supervisor, made.stack:
        supervisor.start("proxy", made.proxy.run)
        yield made
        await supervisor.stop("proxy")
    made.place.close()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[ProxyLab]:
    async with proxy_lab(tmp_path) as made:
        yield made


async def is_reset(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(10):
        try:
            await reader.read()
        except ConnectionResetError:
            return True
        return False


@pytest.mark.parametrize("header", ["v1", "v2"])
async def test_backend_learns_who_asks_whom_by_ipv4_and_ipv6(lab: ProxyLab, header: Version) -> None:
    one = await lab.backend()
    assert not (await lab.serve(one, header=header)).troubles
    assert await lab.ask(b" hello", source=ELSEWHERE) == b"one hello"
    assert await lab.ask(b" six", target=SIX) == b"one six"
    four, six = one.headers
    assert (four.source, four.destination, four.destination_port) == (ELSEWHERE, HERE, lab.port)
    assert (six.source, six.destination, six.destination_port) == (SIX, SIX, lab.port)
    assert four.source_port and six.source_port


async def test_much_goes_both_ways_unchanged_while_readers_are_slow(lab: ProxyLab) -> None:
    data = os.urandom(1 << 20) * 24
    one = await lab.backend(name=b"")
    await lab.serve(one)
    reader, writer = await lab.connect()
    writer.write(data)  # more than all buffers on the way hold: the proxy must stop reading
    writer.write_eof()
    got = bytearray()
    async with asyncio.timeout(30):
        while chunk := await reader.read(1 << 16):
            got += chunk
    assert bytes(got) == data


async def test_end_of_one_direction_leaves_the_other_open(lab: ProxyLab) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"question"
        for word in (b"late ", b"answer"):
            writer.write(word)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    await lab.serve(await lab.backend(serve=serve))
    assert await lab.ask(b"question") == b"late answer"
    await until(lambda: lab.listeners.connections == 0, deadline=5, what="an end")


async def test_server_may_end_first_and_still_listen(lab: ProxyLab) -> None:
    heard = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        heard.set_result(await reader.read())
        writer.close()

    await lab.serve(await lab.backend(serve=serve))
    reader, writer = await lab.connect()
    assert await reader.read() == b"bye"
    writer.write(b"after that")
    writer.write_eof()
    assert await asyncio.wait_for(heard, 5) == b"after that"


async def test_reset_of_either_side_resets_the_other(lab: ProxyLab) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) == b"r":
            writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            writer.transport.abort()
            return
        ended.set_result(await is_reset(reader))

    ended = asyncio.get_running_loop().create_future()
    await lab.serve(await lab.backend(serve=serve))
    reader, writer = await lab.connect()
    writer.write(b"r")
    assert await is_reset(reader)
    reader, writer = await lab.connect()
    writer.write(b"x")
    await until(lambda: lab.listeners.connections, deadline=5)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    assert await asyncio.wait_for(ended, 5)
    await until(lambda: lab.listeners.connections == 0, deadline=5)


async def test_nobody_at_the_backend_resets_the_client_at_once(lab: ProxyLab) -> None:
    port = Port(port=lab.port, header="v2", backends=(Backend(address=HERE, port=free_port()),))
    await lab.put(ProxyState(ports=(port,)))
    began = asyncio.get_running_loop().time()
    assert await lab.resets()
    await lab.put(ProxyState(ports=(Port(port=lab.port, header="v2"),)))
    assert await lab.resets(), "no backend at all"
    assert asyncio.get_running_loop().time() - began < 1
    await until(lambda: lab.listeners.connections == 0, deadline=5)


async def test_backends_take_turns_and_one_that_refuses_is_passed_over(lab: ProxyLab) -> None:
    one, two = await lab.backend(b"1"), await lab.backend(b"2")
    await lab.serve(one, two)
    assert sorted([await lab.ask() for _ in range(6)]) == [b"1"] * 3 + [b"2"] * 3
    assert two.server is not None
    two.server.close()
    assert [await lab.ask() for _ in range(4)] == [b"1"] * 4


async def test_backend_that_leaves_keeps_its_connections_and_gets_no_new_ones(lab: ProxyLab) -> None:
    one, two = await lab.backend(b"1"), await lab.backend(b"2")
    await lab.serve(one)
    reader, writer = await lab.connect()
    assert await reader.readexactly(1) == b"1"
    await lab.serve(two, header="v1")
    assert [await lab.ask() for _ in range(3)] == [b"2"] * 3
    await lab.put(ProxyState())
    with pytest.raises(ConnectionRefusedError):
        await lab.connect()
    writer.write(b" still here")
    writer.write_eof()
    assert await reader.read() == b" still here"


async def test_clients_outside_of_the_list_and_denied_ones_are_reset(lab: ProxyLab) -> None:
    one = await lab.backend()
    await lab.serve(one, allow=(f"{ELSEWHERE}/32", "fd00::/8"))
    assert await lab.ask(source=ELSEWHERE) == b"one"
    for source, target in ((HERE, HERE), (SIX, SIX)):
        assert await lab.resets(source, target)
    port = Port(port=lab.port, header="v2", backends=(one.backend,))
    await lab.put(ProxyState(ports=(port,), deny=(f"{ELSEWHERE}/32",)))
    assert await lab.resets(ELSEWHERE)
    assert await lab.ask(source=HERE) == b"one" and len(one.headers) == 2


async def test_port_of_one_address_is_on_that_one_only(lab: ProxyLab) -> None:
    await lab.serve(await lab.backend(), host_ip=HERE)
    assert await lab.ask() == b"one"
    for target in (ELSEWHERE, SIX):
        with pytest.raises(ConnectionRefusedError):
            await lab.connect(target=target)


async def test_port_that_is_taken_is_told_and_served_when_it_is_free(lab: ProxyLab) -> None:
    one = await lab.backend()
    with socket.create_server((HERE, lab.port)):
        verdict = await lab.serve(one, host_ip=HERE)
        assert verdict.troubles == (
            f"published port {lab.port}/tcp: cannot listen on {HERE}: {os.strerror(errno.EADDRINUSE)}",
        )

    async def served() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            return await lab.ask() == b"one"
        return False

    await until(served, deadline=5, what="the port")


@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b'{"ports": [{"port": 1, "header": "v3"}]}',
        b'{"ports": [{"port": 70000, "header": "v1"}]}',
        b'{"ports": [{"port": 1, "header": "v1", "host_ip": "nowhere"}]}',
        b'{"ports": [{"port": 1, "header": "v1", "allow": ["10.0.0.1/8"]}]}',
        b'{"ports": [{"port": 1, "header": "v1"}, {"port": 1, "header": "v1", "host_ip": "0.0.0.0"}]}',
    ],
)
async def test_state_that_makes_no_sense_is_refused_and_the_old_one_served(lab: ProxyLab, bad: bytes) -> None:
    await lab.serve(await lab.backend())
    verdict = await lab.put(bad)
    assert verdict.refused and "\n" not in verdict.refused
    assert await lab.ask() == b"one"


async def test_connections_are_bounded_in_all_and_per_port(tmp_path: Path) -> None:
    async with proxy_lab(tmp_path, most=10) as lab:
        one = await lab.backend()
        other = free_port()
        ports = tuple(Port(port=p, header="v2", backends=(one.backend,)) for p in (lab.port, other))
        await lab.put(ProxyState(ports=ports))
        held = [await lab.connect() for _ in range(6)]
        assert [await reader.readexactly(3) for reader, _ in held] == [b"one"] * 6
        assert await lab.resets(), "one port has six tenths"
        lab.port = other
        more = [await lab.connect() for _ in range(4)]
        assert [await reader.readexactly(3) for reader, _ in more] == [b"one"] * 4
        assert await lab.resets(), "all together ten"
        held[0][1].write_eof()
        await held[0][0].read()
        await until(lambda: lab.listeners.connections == 9, deadline=5)
        assert await lab.ask() == b"one"


async def test_idle_connections_hold_two_descriptors_each(lab: ProxyLab) -> None:
    await lab.serve(await lab.backend())
    before = len(os.listdir("/proc/self/fd"))
    held = [await lab.connect() for _ in range(20)]
    for reader, writer in held:
        assert await reader.readexactly(3) == b"one"
        writer.write(b"x")
    await until(lambda: lab.listeners.connections == 20, deadline=5)
    # Four of a connection are the test's and the backend's; pipes are shared.
    assert len(os.listdir("/proc/self/fd")) - before <= 20 * 4 + 4


async def test_port_accepts_again_when_the_kernel_has_room_again(
    lab: ProxyLab, caplog: pytest.LogCaptureFixture
) -> None:
    """No descriptors are left for a while; the client waits in the kernel's queue meanwhile."""
    await lab.serve(await lab.backend())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.setblocking(False)
        held = os.open("/dev/null", os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (held + 1, hard))
        try:
            await asyncio.get_running_loop().sock_connect(client, (HERE, lab.port))
            await until(lambda: "cannot accept" in caplog.text, deadline=5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(held)
        async with asyncio.timeout(10):
            assert await asyncio.get_running_loop().sock_recv(client, 3) == b"one"
    assert caplog.text.count("cannot accept") == 1
