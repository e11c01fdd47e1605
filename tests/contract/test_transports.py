"""What every transport to a host does alike: over SSH (to a server of asyncssh's, here) and on this
machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from aio.together import together
from deploy.inventory import Target
from deploy.local import LocalTransport
from deploy.software import INSTALL
from deploy.ssh import SshSettings, connect
from deploy.transport import OUTPUT_CAP, Streaming, Transport, file_digest
from model.errors import CommandFailed, DeadlineExceeded, InvalidInput, Unauthenticated, Unavailable
from tests.support.waiting import until


async def _feed(process: asyncssh.SSHServerProcess[bytes], pipe: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncssh.Error):
        while data := await process.stdin.read(65536):
            pipe.write(data)
            await pipe.drain()
    pipe.close()


async def _pass(pipe: asyncio.StreamReader, out: asyncssh.SSHWriter[bytes]) -> None:
    with contextlib.suppress(ConnectionError, asyncssh.Error):
        while data := await pipe.read(65536):
            out.write(data)
            await out.drain()


class Forwarding(asyncssh.SSHServer):
    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return True


class Server:
    """An SSH server on a loopback port, and the files of a user who may log in."""

    def __init__(self, folder: Path) -> None:
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.client = asyncssh.generate_private_key("ssh-ed25519")
        self.identity = folder / "id"
        self.client.write_private_key(self.identity)
        self.known_hosts = folder / "known_hosts"
        self._folder = folder
        self.port = 0
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._programs: list[asyncio.subprocess.Process] = []
        self.connections: list[asyncssh.SSHServerConnection] = []

    async def start(self, client: Server | None = None) -> None:
        authorized = self._folder / "authorized"
        authorized.write_bytes((client or self).client.export_public_key())
        self._acceptor = await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[self.key], authorized_client_keys=str(authorized),
            process_factory=self.serve, encoding=None, server_factory=Forwarding,
            acceptor=self.connections.append,
        )  # fmt: skip
        self.port = self._acceptor.get_port()
        self.know(self.key)

    def know(self, key: asyncssh.SSHKey) -> None:
        public = key.export_public_key().decode()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")

    def target(self, **words: object) -> Target:
        found = {"host": "127.0.0.1", "user": "root", "port": self.port, "identity": (str(self.identity),)}
        return Target(**{**found, **words})  # type: ignore[arg-type]

    @property
    def settings(self) -> SshSettings:
        return SshSettings(known_hosts=(str(self.known_hosts),))

    async def serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """As sshd: hands the command to a shell, whose input ends with the connection."""
        program = await asyncio.create_subprocess_exec(
            "sh", "-c", process.command or "", stdin=-1, stdout=-1, stderr=-1, start_new_session=True
        )
        self._programs.append(program)
        assert program.stdin is not None and program.stdout is not None and program.stderr is not None
        feeding = asyncio.ensure_future(_feed(process, program.stdin))
        try:
            outputs = (program.stdout, process.stdout), (program.stderr, process.stderr)
            await together(_pass(pipe, out) for pipe, out in outputs)
            process.exit(await program.wait())
        finally:
            feeding.cancel()
            await asyncio.wait({feeding})
            self._programs.remove(program)

    async def stop(self) -> None:
        assert self._acceptor is not None
        self._acceptor.close()
        for connection in self.connections:
            connection.abort()
        await self._acceptor.wait_closed()
        for program in self._programs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
        await until(lambda: not self._programs, deadline=10, what="the end of all programs")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(params=["ssh", "local"])
async def to(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[Streaming]:
    over: Streaming = LocalTransport()
    if request.param == "ssh":
        over = await connect(server.target(), server.settings)
    yield over
    await over.close()


async def test_run_hands_over_words_as_they_are_and_input(to: Transport) -> None:
    words = ["a b", "it's", '"$HOME"', "*", "", "-n", "ä;reboot", "x\ny"]
    script = 'for w; do printf "<%s>" "$w"; done; cat; echo "$LC_ALL" >&2; exit 7'
    done = await to.run(["sh", "-c", script, "sh", *words], stdin=b"\x00in", timeout=10)
    assert done.code == 7 and done.out == "".join(f"<{word}>" for word in words).encode() + b"\x00in"
    assert done.err == b"C\n" and done.words == "C"


async def test_run_of_a_program_that_is_not_there_is_a_result(to: Transport) -> None:
    done = await to.run(["/no/such/program"], timeout=10)
    assert done.code == 127 and "no/such/program" in done.words


async def test_run_keeps_no_more_than_the_cap_and_takes_input_that_nobody_reads(to: Transport) -> None:
    done = await to.run(["sh", "-c", "head -c 5000000 /dev/zero"], stdin=b"x" * 300_000, timeout=20)
    assert done.code == 0 and len(done.out) == OUTPUT_CAP


async def test_run_that_takes_too_long_is_ended_and_said_so(to: Transport) -> None:
    with pytest.raises(DeadlineExceeded, match="did not end within") as told:
        await to.run(["sleep", "60"], timeout=0.2)
    assert to.host in str(told.value)


async def test_stream_tells_all_as_it_comes_and_how_it_ended(to: Streaming, tmp_path: Path) -> None:
    said = {1: b"", 2: b""}

    def heard(stream: int, data: bytes) -> None:
        said[stream] += data

    script = (
        'echo one; echo two >&2; until [ -e "$1" ]; do sleep 0.02; done; head -c 3000000 /dev/zero; exit 7'
    )
    words = ["sh", "-c", script, "sh", str(tmp_path / "go")]
    running = asyncio.create_task(to.stream(words, timeout=60, heard=heard))
    try:
        await until(lambda: said == {1: b"one\n", 2: b"two\n"}, deadline=30, what="its first words")
        (tmp_path / "go").touch()
        assert await running == 7
    finally:
        running.cancel()
    assert len(said[1]) == 3_000_004 > OUTPUT_CAP, "nothing of it is left out"
    assert await to.stream(["/no/such/program"], timeout=10, heard=heard) == 127
    assert b"no/such/program" in said[2]
    with pytest.raises(DeadlineExceeded, match="did not end within"):
        await to.stream(["sleep", "60"], timeout=0.2, heard=heard)


async def test_put_makes_the_file_whole_with_its_mode_and_folder(to: Transport, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new folder" / "it's"
    source.write_bytes(os.urandom(3_000_000))
    await to.put(source, str(target), 0o640)
    assert file_digest(target) == file_digest(source)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(target.parent) == [target.name]
    source.write_bytes(b"other")
    await to.put(source, str(target), 0o600)
    assert target.read_bytes() == b"other" and stat.S_IMODE(target.stat().st_mode) == 0o600


async def test_put_that_fails_leaves_nothing_and_says_why(to: Transport, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    (tmp_path / "file").touch()
    with pytest.raises(CommandFailed, match="can't be written"):
        await to.put(source, str(tmp_path / "file" / "below"), 0o600)


async def test_held_lives_as_long_as_its_context_and_tells_its_first_line(
    to: Transport, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    script = 'touch "$1"; echo "here I am"; while read -r _; do :; done; rm "$1"'
    async with to.held(["sh", "-c", script, "sh", str(mark)], timeout=10) as said:
        assert said == "here I am" and mark.exists()
    await until(lambda: not mark.exists(), deadline=10, what="its end")


async def test_held_that_ends_or_says_nothing_is_told(to: Transport) -> None:
    async with to.held(["true"], timeout=10) as said:
        assert said == ""
    with pytest.raises(DeadlineExceeded):
        async with to.held(["sh", "-c", "read -r _; read -r _"], timeout=0.2):
            raise AssertionError


async def test_local_programs_hear_nothing_of_the_fleet_that_our_commands_are_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOTA_HOST", "https://another.example.org:7420")
    monkeypatch.setenv("FLOTA_CREDENTIALS", "/another")
    to, words = LocalTransport(), ["sh", "-c", 'echo "<$FLOTA_HOST$FLOTA_CREDENTIALS>"']
    assert (await to.run(words, timeout=10)).text == "<>\n"
    async with to.held(words, timeout=10) as said:
        assert said == "<>"


async def test_a_package_manager_is_not_cut_when_we_are(to: Transport, tmp_path: Path) -> None:
    script = 'cd "$1"; touch begun; for i in $(seq 400); do [ -e go ] && break; sleep 0.05; done; touch done'
    words = ["sh", "-c", INSTALL, "sh", str(tmp_path / "record"), "runc", str(tmp_path / "log")]
    work = asyncio.ensure_future(to.run([*words, "sh", "-c", script, "sh", str(tmp_path)], timeout=30))
    await until(lambda: (tmp_path / "begun").exists(), deadline=10)
    work.cancel()
    await asyncio.wait({work})
    (tmp_path / "go").touch()
    await until(lambda: (tmp_path / "done").exists(), deadline=10, what="its end")


# -- what is SSH's alone --------------------------------------------------------------------------------
async def refused(server: Server, kind: type[Exception], **words: object) -> str:
    with pytest.raises(kind) as told:
        await connect(server.target(**words), server.settings)
    return str(told.value)


async def test_ssh_to_a_host_that_is_not_known_tells_its_key_and_how_to_say_it(server: Server) -> None:
    shown = server.key.get_fingerprint("sha256")
    server.known_hosts.write_text("")
    assert f"--host-key {shown}" in await refused(server, Unauthenticated)
    server.know(asyncssh.generate_private_key("ssh-ed25519"))
    said = await refused(server, Unauthenticated)
    assert "key has CHANGED" in said and f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in said
    assert "not the key SHA256:x" in await refused(server, Unauthenticated, host_key="SHA256:x")
    over = await connect(server.target(host_key=shown), server.settings)
    assert (await over.run(["true"], timeout=10)).code == 0
    await over.close()


async def test_ssh_to_a_name_that_is_not_known_tells_its_key(server: Server) -> None:
    server.known_hosts.write_text("")
    assert "not known yet" in await refused(server, Unauthenticated, host="localhost")


async def test_ssh_forwards_no_agent_whatever_the_settings_say(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text("Host *\n  ForwardAgent yes\n")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    over = await connect(
        server.target(), SshSettings(known_hosts=(str(server.known_hosts),), config=str(config))
    )
    assert (await over.run(["true"], timeout=10)).code == 0
    assert [made.get_agent_path() for made in server.connections] == [None]
    await over.close()


async def test_ssh_with_a_key_that_is_not_taken_or_is_none_says_what_to_do(
    server: Server, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(stranger)
    assert "none of the keys" in await refused(server, Unauthenticated, identity=(str(stranger),))
    stranger.write_text("no key")
    assert "127.0.0.1" in await refused(server, InvalidInput, identity=(str(stranger),))
    missing = (str(tmp_path / "missing"),)
    assert "missing" in await refused(server, InvalidInput, identity=missing)


async def test_ssh_to_nobody_and_over_a_connection_that_broke_is_unavailable(server: Server) -> None:
    over = await connect(server.target(), server.settings)
    work = asyncio.ensure_future(over.run(["sleep", "60"], timeout=30))
    await until(lambda: server.connections, deadline=10)
    await asyncio.sleep(0)
    for connection in server.connections:
        connection.abort()
    with pytest.raises(Unavailable, match="the connection broke"):
        await work
    with pytest.raises(Unavailable, match="the connection broke"):
        await over.run(["true"], timeout=5)
    await over.close()
    await server.stop()
    with pytest.raises(Unavailable, match="SSH can't be had there: Connection refused"):
        await connect(server.target(), server.settings)
    await server.start()


async def test_ssh_config_is_read_where_it_is_named_and_only_there(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host web\n  HostName 127.0.0.1\n  Port {server.port}\n  User root\n"
        f"  IdentityFile {server.identity}\n  UserKnownHostsFile {server.known_hosts}\n"
    )
    settings = SshSettings(known_hosts=(str(server.known_hosts),), config=str(config))
    over = await connect(Target(host="web", host_key=server.key.get_fingerprint("sha256")), settings)
    assert (await over.run(["echo", "there"], timeout=10)).text == "there\n"
    await over.close()


async def test_ssh_through_a_jump_host_reaches_the_other_and_trusts_neither_unseen(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    second = Server(tmp_path / "second")
    await second.start(server)
    jump = f"root@127.0.0.1:{server.port}"
    try:
        target = second.target(jump=jump, identity=(str(server.identity),))
        unknown = f"{jump}: this host is not known yet"
        assert unknown in await refused(second, Unauthenticated, jump=jump, identity=target.identity)
        with open(second.known_hosts, "a") as file:
            file.write(server.known_hosts.read_text())
        over = await connect(target, second.settings)
        assert (await over.run(["echo", "there"], timeout=10)).text == "there\n"
        await over.close()
        assert len(second.connections) == 1
    finally:
        await second.stop()
