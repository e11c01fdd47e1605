"""WireGuard by wireguard-go, a process per device that outlives us; spoken to over its control socket.

The process makes the link and takes it along when it ends, so a dead one is a missing link, which the
reconciler sees and sets back. It has its own cgroup, user and mount namespace (`net.wireguard.launch`).
Nobody restarts it while there is no agent: without its keys it could do nothing, and its network is
unreachable meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from aio.processes import open_process, process_started
from aio.spawn import readable, spawn
from model.errors import CommandFailed
from net.state import TunnelPeer, WireGuard
from net.wireguard import keys, uapi
from net.wireguard.base import Device

PROGRAM = "wireguard-go"
STARTS_WITHIN, ANSWERS_WITHIN, ENDS_WITHIN = 10.0, 3.0, 3.0
LOOK = 0.01
"""Seconds between looks for the socket of a process that starts: it is there before it listens."""
NOTHING = Device()
MOST_ANSWER, MOST_LOG = 64 << 20, 1 << 20


def find_program() -> str:
    """Its path; empty where it is not installed."""
    return shutil.which(PROGRAM, path="/usr/local/bin:/usr/bin:/usr/sbin") or ""


class UserspaceTunnels:
    """`folder` is theirs: sockets and their log; `own_cgroup` where the processes go, if anywhere."""

    def __init__(self, folder: Path, *, own_cgroup: str = "") -> None:
        self._folder, self._cgroup = folder, own_cgroup
        self._children: set[int] = set()

    @property
    def kind(self) -> str:
        return PROGRAM if find_program() else ""

    def drives(self, name: str) -> bool:
        """Whether a device of that name is (or was) one of ours."""
        return self._socket(name).exists()

    async def make(self, name: str) -> None:
        program = find_program()
        if not program:
            raise CommandFailed(
                f"cannot make {name}: this kernel has no WireGuard and {PROGRAM} is not installed",
                hint=f"Install the package {PROGRAM}, or a kernel with WireGuard",
            )
        self._reap()
        if await self._ask(name, uapi.GET) is not None:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket(name).unlink(missing_ok=True)
        pid = self._start(name, program)
        self._children.add(pid)
        try:
            async with asyncio.timeout(STARTS_WITHIN):
                while await self._ask(name, uapi.GET) is None:
                    if process_started(pid) is None:
                        raise CommandFailed(f"cannot make {name}: {self._last_words()}")
                    await asyncio.sleep(LOOK)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise CommandFailed(f"cannot make {name}: {PROGRAM} says nothing, see {self._log}") from None

    async def configure(self, name: str, key_file: Path, port: int) -> None:
        key = keys.read(key_file)
        device = (await self.observe([name])).get(name, NOTHING)
        if device.end is None or device.end.port != port:
            _probe(name, port)
        await self._tell(name, uapi.own(key, port), f"cannot configure {name}")

    async def put_peers(self, peers: Sequence[TunnelPeer]) -> None:
        name = peers[0].link
        await self._tell(name, uapi.put((keys.bytes_of(p.key), p) for p in peers), f"peers of {name}")

    async def drop_peers(self, peers: Sequence[TunnelPeer]) -> None:
        name = peers[0].link
        await self._tell(name, uapi.drop(keys.bytes_of(p.key) for p in peers), f"peers of {name}")

    async def observe(self, names: Iterable[str]) -> Mapping[str, Device]:
        self._reap()
        found: dict[str, Device] = {}
        for name in names:
            if (answer := await self._ask(name, uapi.GET)) is not None:
                with contextlib.suppress(CommandFailed):  # one that talks nonsense is made anew
                    found[name] = _device(uapi.parse(name, answer))
        return found

    async def remove(self, name: str) -> None:
        """By ending its process, which takes the link along."""
        pid = self._listener(name)
        pidfd = open_process(pid, process_started(pid) or 0) if pid else None
        self._socket(name).unlink(missing_ok=True)
        if pidfd is None:
            return
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ENDS_WITHIN):
                        await readable(pidfd)
                        break
        finally:
            os.close(pidfd)
            self._reap()

    # -- within -------------------------------------------------------------------------------------
    @property
    def _log(self) -> Path:
        return self._folder.with_name(f"{self._folder.name}.log")

    def _socket(self, name: str) -> Path:
        return self._folder / f"{name}.sock"

    def _start(self, name: str, program: str) -> int:
        words = (str(self._folder), name, program, *((self._cgroup,) if self._cgroup else ()))
        argv = (sys.executable, "-P", "-m", "net.wireguard.launch", *words)
        with open(self._log, "ab") as output, open(os.devnull, "rb") as nothing:
            if output.tell() > MOST_LOG:
                output.truncate(0)
            streams = {"stdin": nothing.fileno(), "stdout": output.fileno(), "stderr": output.fileno()}
            return spawn(argv, os.environ, fds={}, **streams).let_go()

    def _last_words(self) -> str:
        with contextlib.suppress(OSError, IndexError):
            return self._log.read_text(errors="replace").strip().splitlines()[-1][-300:]
        return f"{PROGRAM} ended, see {self._log}"

    def _reap(self) -> None:
        for pid in list(self._children):
            try:
                ended = os.waitpid(pid, os.WNOHANG)[0] != 0
            except ChildProcessError:
                ended = True
            if ended:
                self._children.discard(pid)

    def _listener(self, name: str) -> int:
        """The process behind the socket; 0: none."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._socket(name)))
            except OSError:
                return 0
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("=3i", raw)[0])

    async def _tell(self, name: str, request: bytes, what: str) -> None:
        answer = await self._ask(name, request)
        if answer is None:
            raise CommandFailed(f"{what}: {PROGRAM} does not answer, see {self._log}")
        uapi.check(answer, what)

    async def _ask(self, name: str, request: bytes) -> bytes | None:
        """None when nobody answers in time."""
        try:
            async with asyncio.timeout(ANSWERS_WITHIN):
                reader, writer = await asyncio.open_unix_connection(self._socket(name), limit=MOST_ANSWER)
                try:
                    writer.write(request)
                    await writer.drain()
                    return await reader.readuntil(b"\n\n")
                finally:
                    writer.close()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return None


def _probe(name: str, port: int) -> None:
    """The program binds it when its link comes up, and then tells only its log that it can't. Raises
    CommandFailed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError as error:
            hint = f"See who has it: ss -lunp sport = :{port}"
            raise CommandFailed(f"{name}: UDP port {port} is taken: {error.strerror}", hint=hint) from error


def _device(answer: uapi.Answer) -> Device:
    end = None
    if answer.private_key.strip("0"):
        end = WireGuard(key=keys.public(bytes.fromhex(answer.private_key)), port=answer.port)
    peers = (replace(peer, key=_text(key)) for key, peer in answer.peers)
    strangers = frozenset(_text(key) for key in answer.strangers)
    return Device(end=end, peers=tuple(sorted(peers, key=lambda peer: peer.key)), strangers=strangers)


def _text(key: str) -> str:
    return keys.text_of(bytes.fromhex(key))
