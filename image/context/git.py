"""A git repository as a tree of objects: fetched shallowly by commit, checked out, and forgotten.

    <objects>/git/<sha256 of what was asked>    root of the tree that it was
    <objects>/git/known_hosts                   SSH host keys, trusted at first sight

A ref is resolved at its host each time, so that a branch that moved is seen; what it means is fetched once.
Modules of the repository are fetched as it is, each URL judged anew. Invariants: the commit is the one that
was resolved, or named; nothing is checked out before its size is known; a repository's own settings are never
read.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from aio.deletion import delete
from aio.supervisor import in_thread
from image.context.gitcalls import Calls, Reach, target, texts, token_header
from image.context.gitmodules import Module, gitlinks, modules, url_of
from image.context.giturl import GitUrl, is_commit, parse
from image.context.guard import Guard
from image.context.here import kept
from image.context.notes import Notes
from image.context.objects import Lease, Objects
from image.context.survey import lacking
from model.contexttree import MAX_DEPTH as MAX_FOLDERS
from model.errors import Damaged, Exhausted, FlotaError, Forbidden, InvalidInput, NotFound

MAX_FILES = 1_000_000
MAX_DEPTH, MAX_MODULES = 8, 200
_LARGE = "Build from a branch or tag with less history, without modules (?submodules=false), or send a folder"
_LISTING = 256 << 20
"""Bytes of a repository's list of files."""

Secret = Callable[[str], Awaitable[bytes | None]]
Ssh = Callable[[], AbstractAsyncContextManager[str]]


async def no_secret(ident: str) -> bytes | None:
    del ident
    return None


class Found(NamedTuple):
    """Which commit it came to."""

    url: GitUrl
    commit: str


class Git:
    """Repositories of one build. `private`: addresses of the site are allowed."""

    def __init__(
        self,
        objects: Objects,
        lease: Lease,
        guard: Guard,
        *,
        private: bool = False,
        secret: Secret = no_secret,
        ssh: Ssh | None = None,
    ) -> None:
        self._objects = objects
        self._lease = lease
        self._guard = guard
        self._private = private
        self._secret = secret
        self._ssh = ssh
        self._folder = os.path.join(objects.folder, "git")
        self._notes = Notes(self._folder)
        self._modules = 0
        self._taken: dict[str, int] = {}
        """Bytes that repositories take on disk, by their folders, and their files."""
        self.found: Found | None = None
        """What `tree` was asked for last."""

    async def tree(self, text: str, *, checksum: str = "", keep_git_dir: bool = False) -> str:
        """The root's digest. `checksum`: the commit that it has to be. Raises InvalidInput, NotFound,
        Forbidden, Unavailable, Damaged, Exhausted."""
        url = parse(text)
        keep = keep_git_dir if url.keep_git_dir is None else url.keep_git_dir
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        async with self._reach(url, url) as reach, _work(self._folder) as work:
            commit = await self._commit(url, reach, work)
            _check_commit(url, commit, checksum or url.commit)
            self.found = Found(url=url, commit=commit)
            memory = self._memory(url, commit, keep)
            known = await in_thread(self._known, memory)
            if known:
                return str(known)
            top = os.path.join(work, "top")
            await self._checked_out(url, reach, commit, top, work, depth=0)
            root = await self._stored(url, top, keep)
            await in_thread(self._notes.write, root.encode(), *memory)
            return root

    # -- what it is ---------------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def _reach(self, url: GitUrl, top: GitUrl) -> AsyncIterator[Reach]:
        """`top`: the repository that was asked for, of which it may be a module."""
        addresses = texts(await self._guard.resolved(url.host, url.port, private=self._private))
        if url.scheme == "ssh":
            if self._ssh is None:
                raise NotFound(
                    f"{url.shown}: no SSH agent was given", hint="Give `--ssh default` to flota build"
                )
            async with self._ssh() as agent:
                known_hosts = os.path.join(self._folder, "known_hosts")
                yield Reach(addresses=addresses, agent=agent, known_hosts=known_hosts)
            return
        header = ""
        if url.scheme == "https":  # a secret does not go out in the clear
            header = await self._header(url, top)
        yield Reach(addresses=addresses, header=header)

    async def _header(self, url: GitUrl, top: GitUrl) -> str:
        """What has no host in its name is for the repository that was asked for: where its modules come from
        is said by whoever wrote it."""
        own = (url.host, url.port) == (top.host, top.port)
        for name in (f".{url.host}", *([""] if own else [])):
            if (value := await self._secret(f"GIT_AUTH_HEADER{name}")) is not None:
                return _one_line(value.decode("latin-1").strip(), url.host)
            if (value := await self._secret(f"GIT_AUTH_TOKEN{name}")) is not None:
                return _one_line(token_header(value), url.host)
        return ""

    async def _commit(self, url: GitUrl, reach: Reach, work: str) -> str:
        """The commit that its ref means: a branch before a tag, as `git checkout` and BuildKit take it."""
        if is_commit(url.ref):
            return url.ref
        name = url.ref or "HEAD"
        wanted = [name] if name == "HEAD" else [name, f"{name}^{{}}"]
        said = await self._calls(url, reach, work, work).remote(
            "ls-remote", "--", target(url, reach), *wanted
        )
        found: dict[str, str] = {}
        for line in said.decode(errors="replace").splitlines():
            commit, _, ref = line.partition("\t")
            if is_commit(commit):
                found[ref] = commit
        bare = name.removeprefix("refs/").removeprefix("heads/").removeprefix("tags/")
        full = [name, f"{name}^{{}}"] if name.startswith("refs/") or name == "HEAD" else []
        short = [f"refs/heads/{bare}", f"refs/tags/{bare}^{{}}", f"refs/tags/{bare}", f"refs/{name}"]
        order = [*full[::-1], *([] if full else short)]
        commit = next((found[ref] for ref in order if ref in found), "")
        if not commit:
            what = f"no branch, tag or commit {url.ref[:100]!r}" if url.ref else "no commit yet"
            raise NotFound(f"{url.shown} has {what}")
        return commit

    # -- its files ----------------------------------------------------------------------------------
    @property
    def _room(self) -> int:
        """Bytes that are left for what is to come."""
        return self._lease.room - sum(self._taken.values())

    def _calls(self, url: GitUrl, reach: Reach, folder: str, home: str) -> Calls:
        return Calls(folder, home, url, reach, max_file=max(self._room, 1 << 20))

    async def _checked_out(
        self,
        url: GitUrl,
        reach: Reach,
        commit: str,
        top: str,
        work: str,
        *,
        depth: int,
        first: GitUrl | None = None,
    ) -> None:
        """The commit's files, and those of its modules, in the folder `top`, which is made. `first`: the
        repository that was asked for, of whose modules it is one."""
        os.makedirs(top, mode=0o755, exist_ok=True)
        calls = self._calls(url, reach, top, work)
        form = "sha256" if len(commit) == 64 else "sha1"
        await calls.local("init", "--quiet", "--template=", f"--object-format={form}")
        await calls.local("remote", "add", "--", "origin", url.url.replace(_credentials(url), "", 1))
        await self._fetch(lambda: self._calls(url, reach, top, work), url, target(url, reach), commit, top)
        links = await self._measured(calls, url, commit)
        await calls.local("checkout", "--quiet", "--force", "--detach", commit)
        if links and url.submodules:
            await self._with_modules(calls, url, commit, links, top, work, depth, first or url)

    async def _fetch(
        self, calls: Callable[[], Calls], url: GitUrl, source: str, commit: str, top: str
    ) -> None:
        """Each attempt may bring what is left by those before, also if it brings something else."""
        plain = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--force")
        shallow = (*plain, "--depth=1", "--update-shallow", "--", source)
        ref = url.ref if url.ref and not is_commit(url.ref) else "HEAD"
        for wanted in (commit, ref):
            came = await calls().attempt(*shallow, wanted)
            await self._took(url, top)
            if came and await self._has(calls(), commit):
                return
        every = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        await calls().remote(*plain, "--", source, *every)
        await self._took(url, top)
        if not await self._has(calls(), commit):
            raise NotFound(f"{url.shown} has no commit {commit}")

    async def _took(self, url: GitUrl, top: str) -> None:
        """Raises Exhausted."""
        self._taken[top] = await in_thread(_size_of, os.path.join(top, ".git"))
        if self._room < 0:
            raise Exhausted(f"{url.shown} is larger than this host takes", hint=_LARGE)

    async def _has(self, calls: Calls, commit: str) -> bool:
        try:
            await calls.local("rev-parse", "--quiet", "--verify", "--end-of-options", f"{commit}^{{commit}}")
        except FlotaError:
            return False
        return True

    async def _measured(self, calls: Calls, url: GitUrl, commit: str) -> dict[str, str]:
        """Its modules' commits by path, once it is known that all its files have room."""
        room = self._room
        counted = _Counted(room)
        await calls.listed(counted.hear, _LISTING, "ls-tree", "-r", "-l", "-z", "--full-tree", commit)
        if counted.depth > MAX_FOLDERS:
            raise Exhausted(f"{url.shown} has more than {MAX_FOLDERS} folders below each other")
        if counted.files > MAX_FILES or counted.size > room or counted.heard >= _LISTING:
            raise Exhausted(f"{url.shown} has more files, or larger ones, than this host takes", hint=_LARGE)
        self._taken[f"{calls.folder}/files"] = counted.size
        return counted.links

    async def _with_modules(
        self,
        calls: Calls,
        url: GitUrl,
        commit: str,
        links: dict[str, str],
        top: str,
        work: str,
        depth: int,
        first: GitUrl,
    ) -> None:
        said = b""
        if await self._has_file(calls, commit):
            said = await calls.local("config", "--blob", f"{commit}:.gitmodules", "--list", "-z")
        for module in modules(said, links, url):
            self._modules += 1
            if depth >= MAX_DEPTH or self._modules > MAX_MODULES:
                raise InvalidInput(f"{url.shown} has more, or deeper, submodules than are fetched")
            await self._module(module, url_of(module, url), top, work, depth, first)

    async def _has_file(self, calls: Calls, commit: str) -> bool:
        said = await calls.local("ls-tree", "-z", "--full-tree", commit, "--", ".gitmodules")
        return said.startswith((b"100644 blob", b"100755 blob"))

    async def _module(
        self, module: Module, url: GitUrl, top: str, work: str, depth: int, first: GitUrl
    ) -> None:
        below = await in_thread(_below, top, module.path)
        async with self._reach(url, first) as reach:
            await self._checked_out(url, reach, module.commit, below, work, depth=depth + 1, first=first)

    async def _stored(self, url: GitUrl, top: str, keep_git_dir: bool) -> str:
        chosen = await in_thread(_chosen, top, url, keep_git_dir)
        return await kept(self._objects, self._lease, chosen)

    # -- what is remembered -------------------------------------------------------------------------
    def _memory(self, url: GitUrl, commit: str, keep: bool) -> tuple[str, ...]:
        return (url.url, commit, url.folder, str(keep), str(url.submodules))

    def _known(self, memory: tuple[str, ...]) -> str:
        """The root, if all of it is still here."""
        try:
            root = self._notes.read(*memory).decode("ascii")
            return "" if not root or lacking(self._objects, self._lease, root) else root
        except (UnicodeDecodeError, Damaged):
            return ""


@contextlib.asynccontextmanager
async def _work(folder: str) -> AsyncIterator[str]:
    """A folder in it until the block ends; what a kill leaves goes when the store is opened."""
    work = tempfile.mkdtemp(prefix="fetch-", dir=folder)
    try:
        yield work
    finally:
        await in_thread(delete, work)


class _Counted:
    """`git ls-tree -r -l -z` as it comes."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._rest = b""
        self.files = 0
        self.size = 0
        self.heard = 0
        self.depth = 0
        self.links: dict[str, str] = {}

    def hear(self, data: bytes) -> None:
        self.heard += len(data)
        *lines, self._rest = (self._rest + data).split(b"\0")
        for line in lines:
            meta, _, path = line.partition(b"\t")
            mode, _, rest = meta.partition(b" ")
            size = rest.rpartition(b" ")[2]
            self.files += 1
            self.depth = max(self.depth, path.count(b"/"))
            self.size += int(size) if size.isdigit() else 0
            if mode == b"160000" and len(self.links) <= MAX_MODULES:
                self.links |= gitlinks(rest, path)


def _check_commit(url: GitUrl, commit: str, expected: str) -> None:
    if expected and not commit.startswith(expected.removeprefix("sha1:").lower()):
        raise Damaged(
            f"{url.shown} is at the commit {commit}, not {expected[:64]}",
            hint="Look whether the ref or the checksum is the right one",
        )


def _one_line(header: str, host: str) -> str:
    if not header.isprintable():
        raise InvalidInput(f"the secret for {host} has more than one line")
    return header


def _credentials(url: GitUrl) -> str:
    """What of its text is secret, or may be: over HTTP a token is a user's name too."""
    head, mark, _ = url.url.partition("://")[2].partition("/")[0].rpartition("@")
    return head + mark if mark and (":" in head or url.scheme.startswith("http")) else ""


def _below(top: str, path: str) -> str:
    """The folder of a module: below the top through folders alone, and empty."""
    here = top
    for part in path.split("/"):
        if part in ("", ".", "..") or part.lower() == ".git":
            raise InvalidInput(f"a submodule stands at {path[:100]!r}")
        here = os.path.join(here, part)
        if os.path.islink(here):
            raise Forbidden(f"the submodule {path[:100]!r} stands behind a link")
    if os.path.isdir(here):
        os.rmdir(here)
    return here


def _size_of(folder: str) -> int:
    """Bytes on disk of the files below."""
    sizes = (
        os.lstat(os.path.join(base, name)).st_blocks * 512
        for base, _, names in os.walk(folder)
        for name in names
    )
    return sum(sizes)


def _chosen(top: str, url: GitUrl, keep_git_dir: bool) -> str:
    """The folder that was asked for, without what is git's own."""
    if not keep_git_dir or url.folder:
        for base, folders, files in os.walk(top):
            if ".git" in folders:
                folders.remove(".git")
                delete(os.path.join(base, ".git"))
            elif ".git" in files:
                os.unlink(os.path.join(base, ".git"))
    else:
        for name in ("FETCH_HEAD", "ORIG_HEAD", "logs"):
            path = os.path.join(top, ".git", name)
            if os.path.isdir(path):
                delete(path)
            elif os.path.exists(path):
                os.unlink(path)
    here = top
    for part in filter(None, url.folder.split("/")):
        here = os.path.join(here, part)
        if os.path.islink(here):
            raise Forbidden(f"{url.shown}: the folder {url.folder[:100]!r} is behind a link")
        if not os.path.isdir(here):
            raise NotFound(f"{url.shown} has no folder {url.folder[:100]!r}")
    return here
