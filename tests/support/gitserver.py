"""A git host on loopback: smart HTTP by `git http-backend`, and git's own protocol by `git daemon`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

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


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
