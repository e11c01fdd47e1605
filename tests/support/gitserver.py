"""A git host on loopback: smart HTTP by `git http-backend`, git's own protocol by `git daemon`, and SSH."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import asyncssh
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.ports import free_port
from tests.support.waiting import until

ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}


def git(folder: Path, *words: str, stdin: bytes = b"") -> str:
    """What it says; it has to go well."""
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", "-C", os.fspath(folder), *words],
        env=ENV,
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


class Repository:
    """One with a work tree at `folder`; what is committed is served."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        git(folder, "init", "--quiet", "--initial-branch=main")
        git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
        git(folder, "config", "http.receivepack", "false")

    def commit(self, files: Mapping[str, bytes | str]) -> str:
        """Content, or a link's target as text; the commit."""
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if isinstance(content, str):
                path.symlink_to(content)
            else:
                path.write_bytes(content)
        git(self.folder, "add", "--all", "--force")
        git(self.folder, "commit", "--quiet", "--allow-empty", "-m", "a change")
        return git(self.folder, "rev-parse", "HEAD")

    def raw_tree(self, *entries: tuple[str, str, str]) -> str:
        """A tree of (mode, id, name), whatever they are, committed at the branch `raw`."""
        listing = "".join(f"{mode} {ident}\t{name}\n" for mode, ident, name in entries)
        kinds = {"040000": "tree", "160000": "commit"}
        lines = "".join(
            f"{mode} {kinds.get(mode, 'blob')} {ident}\t{name}\n" for mode, ident, name in entries
        )
        assert listing
        tree = git(self.folder, "mktree", "--missing", stdin=lines.encode())
        commit = git(self.folder, "commit-tree", tree, "-m", "raw")
        git(self.folder, "update-ref", "refs/heads/raw", commit)
        return commit

    def blob(self, data: bytes) -> str:
        return git(self.folder, "hash-object", "-w", "--stdin", stdin=data)


class GitHost:
    """Repositories below `root`, by HTTP. `asked`: paths with the Authorization they came with."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.asked: list[tuple[str, str]] = []
        self.token = ""
        """If not empty, only who sends it is let in."""
        self.redirect = ""

    async def answer(self, request: web.Request) -> web.Response:
        header = request.headers.get("Authorization", "")
        self.asked.append((request.path, header))
        if self.redirect:
            return web.Response(status=302, headers={"Location": self.redirect + request.path_qs})
        if self.token and header != self.token:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
        process = await asyncio.create_subprocess_exec(
            "git",
            "http-backend",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=ENV
            | {
                "GIT_PROJECT_ROOT": os.fspath(self._root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": request.path,
                "QUERY_STRING": request.query_string,
                "REQUEST_METHOD": request.method,
                "CONTENT_TYPE": request.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
            },
        )
        out, _ = await process.communicate(await request.read())
        head, _, body = out.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        return web.Response(status=status, headers=headers, body=body)


@contextlib.asynccontextmanager
async def served(root: Path) -> AsyncIterator[tuple[GitHost, str]]:
    """The host, and the URL before a repository's name."""
    host = GitHost(root)
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{any:.*}", host.answer)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        yield host, f"http://127.0.0.1:{server.port}"
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def daemon(root: Path) -> AsyncIterator[str]:
    """`git daemon` on loopback: the URL before a repository's name."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "git",
        "daemon",
        "--reuseaddr",
        "--listen=127.0.0.1",
        f"--port={port}",
        "--export-all",
        f"--base-path={root}",
        env=ENV | {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"},
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await until(lambda: _answers(port), deadline=10, what="git daemon")
        yield f"git://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


async def _feed(process: asyncssh.SSHServerProcess[bytes], pipe: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await process.stdin.read(65536):
            pipe.write(data)
            await pipe.drain()
    pipe.close()


@contextlib.asynccontextmanager
async def over_ssh(root: Path, folder: Path) -> AsyncIterator[tuple[str, str, Path]]:
    """A host that lets one key in: the URL before a repository's name, the socket of an agent with that key,
    and the file of the host's own key."""
    folder.mkdir()
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", os.fspath(folder / name)]
        await _done(*command)
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())

    async def serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
        words = shlex.split(process.command or "")
        assert words[0] == "git-upload-pack", words
        child = await asyncio.create_subprocess_exec(
            "git",
            "upload-pack",
            os.fspath(root / words[1].lstrip("/")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=ENV
            | {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"},
        )
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(_feed(process, child.stdin))
            while data := await child.stdout.read(65536):
                process.stdout.write(data)
            process.stderr.write(await child.stderr.read())
            code = await child.wait()
            feeding.cancel()
        process.exit(code)

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[os.fspath(folder / "host")],
        authorized_client_keys=os.fspath(folder / "authorized"),
        process_factory=serve,
        encoding=None,
    )
    agent = await asyncio.create_subprocess_exec(
        "ssh-agent", "-D", "-a", os.fspath(folder / "agent"), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await until((folder / "agent").exists, deadline=10, what="ssh-agent")
        await _done("ssh-add", "-q", os.fspath(folder / "user"), SSH_AUTH_SOCK=os.fspath(folder / "agent"))
        port = server.sockets[0].getsockname()[1]
        yield f"ssh://git@127.0.0.1:{port}", os.fspath(folder / "agent"), folder / "host"
    finally:
        agent.kill()
        await agent.wait()
        server.close()
        await server.wait_closed()


async def _done(*command: str, **env: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **env})
    assert await process.wait() == 0, command
