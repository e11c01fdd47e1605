"""Calling git on a stranger's repository: its environment, and nothing of this host's. Pure but for `Calls`.

Invariants: protocols are an allow-list, and no file of this host is one; no hook, filter, credential helper
or prompt is run; words of a user stand after `--` or were checked to be no option; hosts are reached by the
addresses that were judged, redirects are not followed; no file that git writes is larger than allowed, and
what a fetch brings is one file.
Sources: git(1) "Environment Variables", git-config(1); libcurl, CURLOPT_RESOLVE.
"""

from __future__ import annotations

import base64
import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence

from aio.subprocess import run
from image.context.giturl import GitUrl
from image.context.guard import Address
from model.errors import CommandFailed, FlotaError, Forbidden, NotFound, Unavailable, Unsupported
from model.spec import Struct

FETCH, LOCAL = 1800.0, 600.0
"""Seconds for what goes over the network, and what does not."""
_BLOCK = 512
_SETTINGS = {
    "protocol.allow": "never",
    "protocol.https.allow": "always",
    "protocol.http.allow": "always",
    "protocol.git.allow": "always",
    "protocol.ssh.allow": "always",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "60",
    "http.proxy": "",
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.symlinks": "true",
    "core.autocrlf": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.longpaths": "true",
    "core.sshCommand": "false",
    "credential.helper": "",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "fetch.writeCommitGraph": "false",
    "fetch.unpackLimit": "1",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
    "init.defaultBranch": "main",
    "safe.directory": "*",
    "uploadpack.packObjectsHook": "",
    "pack.threads": "1",
}


class Reach(Struct):
    """How a repository is reached: judged addresses, and who we are there."""

    addresses: tuple[str, ...] = ()
    agent: str = ""
    """Socket of an SSH agent."""
    known_hosts: str = "/dev/null"
    """File of host keys; a host that is new is added."""
    header: str = ""
    """`Authorization` of HTTP."""


def token_header(token: bytes) -> str:
    """Of a token that a hosting service gave, as Docker's builders send GIT_AUTH_TOKEN."""
    word = token.decode("latin-1").strip()
    return "Basic " + base64.b64encode(f"x-access-token:{word}".encode()).decode()


def target(url: GitUrl, reach: Reach) -> str:
    """The URL that git is given: of its own protocol, which can't be pinned otherwise, by address."""
    if url.scheme != "git" or not reach.addresses:
        return url.url
    address = reach.addresses[0]
    host = f"[{address}]" if ":" in address else address
    path = url.url.partition("://")[2].partition("/")[2]
    return f"git://{host}:{url.port}/{path}"


def environment(url: GitUrl | None, reach: Reach, home: str) -> dict[str, str]:
    """The whole of it."""
    settings = dict(_SETTINGS)
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": "https:http:git:ssh",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_SSH_VARIANT": "ssh",
    }
    if url is not None and url.scheme == "ssh":
        env["GIT_SSH_COMMAND"] = _ssh(url, reach)
        env["SSH_AUTH_SOCK"] = reach.agent
    if url is not None and url.scheme in ("http", "https"):
        pins = ",".join(f"[{one}]" if ":" in one else one for one in reach.addresses)
        if pins:
            settings["http.curloptResolve"] = f"{url.host}:{url.port}:{pins}"
        if reach.header:
            settings["http.extraHeader"] = f"Authorization: {reach.header}"
    env["GIT_CONFIG_COUNT"] = str(len(settings))
    for number, (key, value) in enumerate(settings.items()):
        env[f"GIT_CONFIG_KEY_{number}"] = key
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    return env


def _ssh(url: GitUrl, reach: Reach) -> str:
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": reach.known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": url.host if url.port == 22 else f"[{url.host}]:{url.port}",
        "ConnectTimeout": "15",
        "ServerAliveInterval": "15",
        "ForwardAgent": "no",
        "PermitLocalCommand": "no",
        "ProxyCommand": "none",
    }
    if reach.addresses:
        options["HostName"] = reach.addresses[0]
    words = [
        "ssh",
        "-F",
        "/dev/null",
        *(word for key, value in options.items() for word in ("-o", f"{key}={value}")),
    ]
    return shlex.join(words)


def wrapped(argv: Sequence[str], max_file: int, piped: int = 0) -> list[str]:
    """With umask and the largest file set; of its output `piped` bytes at most, if not 0."""
    tail = f'"$@" | head -c {piped}' if piped else 'exec "$@"'
    return ["/bin/sh", "-c", f"umask 022; ulimit -f {-(-max_file // _BLOCK)}; {tail}", "sh", *argv]


class Calls:
    """Of one repository, in its folder. `home`: an empty folder."""

    def __init__(self, folder: str, home: str, url: GitUrl, reach: Reach, *, max_file: int) -> None:
        self.folder = folder
        self._home = home
        self._url = url
        self._reach = reach
        self._max_file = max_file

    async def remote(self, *words: str) -> bytes:
        """What speaks with the repository's host. Raises NotFound, Forbidden, Unavailable, Unsupported."""
        done = await self._run(words, FETCH, environment(self._url, self._reach, self._home))
        if done[0] != 0:
            raise refusal(self._url, done[2])
        return done[1]

    async def attempt(self, *words: str) -> bool:
        """As `remote`; whether it went well."""
        return (await self._run(words, FETCH, environment(self._url, self._reach, self._home)))[0] == 0

    async def local(self, *words: str) -> bytes:
        """What does not. Raises CommandFailed."""
        code, stdout, stderr = await self._run(words, LOCAL, environment(None, Reach(), self._home))
        if code != 0:
            raise CommandFailed(f"{self._url.shown}: git {words[0]} failed: {last_words(stderr)}")
        return stdout

    async def listed(self, heard: Callable[[bytes], None], limit: int, *words: str) -> None:
        """Output of a local call as it comes, `limit` bytes at most."""
        env = environment(None, Reach(), self._home)
        argv = wrapped(self._argv(words), self._max_file, limit)
        await run(
            argv, deadline=LOCAL, env=env, heard=lambda number, data: heard(data) if number == 1 else None
        )

    async def _run(
        self, words: Sequence[str], deadline: float, env: Mapping[str, str]
    ) -> tuple[int, bytes, bytes]:
        done = await run(wrapped(self._argv(words), self._max_file), deadline=deadline, env=env)
        return done.code, done.stdout, done.stderr

    def _argv(self, words: Sequence[str]) -> list[str]:
        program = shutil.which("git", path="/usr/local/bin:/usr/bin:/bin")
        if program is None:
            raise Unsupported(
                "git is not installed on the host that builds",
                hint="Install it there, or send the files as a folder",
            )
        return [program, "-C", self.folder, *words]


_SAID = (
    ("could not resolve host", Unavailable, "its host is unknown to the name service"),
    ("repository not found", NotFound, "there is no such repository, or it needs a login"),
    ("does not appear to be a git repository", NotFound, "there is no such repository"),
    ("not exported", NotFound, "there is no such repository"),
    ("not found", NotFound, "there is no such repository"),
    ("couldn't find remote ref", NotFound, "there is no such branch, tag or commit"),
    ("permission denied", Forbidden, "its host lets nobody in with these keys"),
    ("terminal prompts disabled", Forbidden, "it needs a login"),
    ("authentication failed", Forbidden, "its host refuses the login"),
    ("host key verification failed", Forbidden, "its host shows another key than before"),
    ("unable to update url base from redirection", Forbidden, "its host redirects elsewhere"),
    ("file size limit", Forbidden, "it is larger than this host takes"),
)


def refusal(url: GitUrl, stderr: bytes) -> FlotaError:
    """What git says, for people."""
    said = stderr.decode(errors="replace")
    for words, cls, meaning in _SAID:
        if words in said.lower():
            hint = "Give the secret GIT_AUTH_TOKEN, or an SSH URL and --ssh" if cls is Forbidden else ""
            return cls(f"{url.shown}: {meaning}", hint=hint)
    return Unavailable(f"{url.shown} can't be fetched: {last_words(stderr)}")


def last_words(stderr: bytes) -> str:
    """What it said failed, or what it said last."""
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith("fatal: ")]
    told = (fatal[:1] or lines or ["it said nothing"])[-1].removeprefix("fatal: ")
    return "".join(letter if letter.isprintable() else "?" for letter in told)[:300]


def texts(addresses: Sequence[Address]) -> tuple[str, ...]:
    return tuple(str(one) for one in addresses)
