"""What the mounts of a RUN are made of, on this host: folders of other stages and contexts, caches, secrets,
sockets of the client's agent.

A source is looked up in the files that it is from as a container would, so no link of theirs leads out
(CVE-2024-1753). Invariants: a secret lies in memory alone and only while its step runs; locks are taken in
one order by all.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from collections.abc import Mapping, Sequence

from agent.build.caches import Caches, CacheWish, Fill
from agent.build.mounts import MAX_SECRET, Wanted, cache_key
from agent.inroot import locate
from image.build.base import Bound, Session
from image.drivers.copying import copy_layers
from model.build import StepMoved
from model.errors import Internal, InvalidInput, NotFound
from model.spec import Mount, Struct

_libc = ctypes.CDLL(None, use_errno=True)
_NOSUID_NODEV_NOEXEC = 2 | 4 | 8
SECRETS = "secrets"


class Fitted(Struct):
    """One mount, its source on this host. `folder`: it is one."""

    target: str
    source: str = ""
    folder: bool = True
    read_only: bool = False
    size: int = 0
    """Of a tmpfs, which has no source."""

    def mount(self, place: str) -> Mount:
        """As the agent's mounts are told; `place`: where its target leads."""
        if not self.source:
            return Mount(type="tmpfs", target=place, tmpfs_size=self.size, tmpfs_options=("exec",))
        return Mount(type="bind", target=place, source=self.source, read_only=self.read_only)


class Fittings(Struct):
    mounts: tuple[Fitted, ...] = ()
    environment: tuple[str, ...] = ()


class Fitter:
    """For all builds of a host."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches

    async def fit(
        self,
        stack: contextlib.AsyncExitStack,
        mounts: Sequence[Wanted],
        bound: Sequence[Bound | None],
        session: Session,
        *,
        number: int,
        folder: str,
    ) -> Fittings:
        """All of them, until the stack unwinds. `folder` is the step's own. Raises NotFound,
        InvalidInput."""
        made: dict[int, Fitted] = {}
        environment: list[str] = []
        if any(one.mount.kind == "secret" for one in mounts):
            _in_memory(os.path.join(folder, SECRETS))
        for one in mounts:
            if one.mount.kind == "bind":
                made[one.index] = _bind(one, _whose(one, bound))
            elif one.mount.kind == "tmpfs":
                made[one.index] = Fitted(target=one.target, size=one.mount.size)
            elif one.mount.kind == "secret":
                value = await _secret(one, session)
                if value is None:
                    continue
                environment += [_variable(one, value)] if one.mount.env else []
                if one.target:
                    made[one.index] = _secret_file(one, value, folder)
            elif one.mount.kind == "ssh" and (socket := await _agent(stack, one, session)) is not None:
                made[one.index] = Fitted(target=one.target, source=socket, folder=False)
                if not any(pair.startswith("SSH_AUTH_SOCK=") for pair in environment):
                    environment.append(f"SSH_AUTH_SOCK={one.target}")
        made |= await self._hold(stack, mounts, bound, session, number)
        return Fittings(mounts=tuple(made[index] for index in sorted(made)), environment=tuple(environment))

    async def _hold(
        self,
        stack: contextlib.AsyncExitStack,
        mounts: Sequence[Wanted],
        bound: Sequence[Bound | None],
        session: Session,
        number: int,
    ) -> Mapping[int, Fitted]:
        """Caches, in the order of their keys: two steps that want each other's never wait for ever."""
        by_key: dict[str, list[Wanted]] = {}
        for one in (one for one in mounts if one.mount.kind == "cache"):
            whose = bound[one.index]
            base = "" if whose is None else whose.id or one.mount.origin or whose.path
            by_key.setdefault(cache_key(one, base), []).append(one)
        made: dict[int, Fitted] = {}
        for key, users in sorted(by_key.items()):
            first = users[0]
            sharing = next(
                (s for s in ("locked", "private") if any(u.mount.sharing == s for u in users)), "shared"
            )
            wish = CacheWish(
                key=key,
                ident=first.ident,
                sharing=sharing,
                owner=None if first.mount.uid is None and first.mount.gid is None else (first.uid, first.gid),
                mode=first.mount.mode if first.mount.mode is None else first.mode(0),
            )

            def waits(ident: str = first.ident) -> None:
                session.tell(StepMoved(step=number, what=f"waiting for cache {ident}: another step has it"))

            fill = _fill(first, bound[first.index])
            data = await stack.enter_async_context(self._caches.hold(wish, fill, waits))
            for one in users:
                made[one.index] = Fitted(target=one.target, source=data, read_only=one.read_only)
        return made


def _bind(one: Wanted, whose: Bound) -> Fitted:
    source = _source(one, whose)
    return Fitted(target=one.target, source=source, folder=os.path.isdir(source), read_only=one.read_only)


def _whose(one: Wanted, bound: Sequence[Bound | None]) -> Bound:
    whose = bound[one.index]
    if whose is None:
        raise InvalidInput(f"mount at {one.target}: there are no files that it could be from")
    return whose


def _source(one: Wanted, whose: Bound) -> str:
    """Its path on the host, free of links. Raises NotFound, InvalidInput."""
    where = f"mount at {one.target}: source {one.source[:200]}"
    try:
        inside, mode = locate(whose.path, one.source)
    except OSError as error:
        raise NotFound(f"{where} is not in {one.mount.origin or 'the context'}: {error.strerror}") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise InvalidInput(f"{where} is neither a file nor a folder")
    return whose.path if inside == "/" else whose.path + inside


def _fill(one: Wanted, whose: Bound | None) -> Fill | None:
    if whose is None:
        if one.source != "/":
            raise InvalidInput(
                f"cache at {one.target}: there is no {one.source[:200]} in it, for it begins empty",
                hint="Leave source out, or say from= whose files it begins with",
            )
        return None
    source = _source(one, whose)
    if not os.path.isdir(source):
        raise InvalidInput(f"cache at {one.target}: source {one.source[:200]} is not a folder")
    return lambda place: copy_layers([source], place, "a cache of RUN")


async def _secret(one: Wanted, session: Session) -> bytes | None:
    """None: it may be missing, and is. Raises NotFound."""
    value = await session.secret(one.ident)
    if value is None and one.mount.required:
        raise NotFound(f"secret {one.ident[:80]} is required and was not given", hint="Give it with --secret")
    if value is not None and len(value) > MAX_SECRET:
        raise InvalidInput(f"secret {one.ident[:80]} has {len(value)} bytes: {MAX_SECRET >> 10} KiB at most")
    return value


def _variable(one: Wanted, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidInput(
            f"secret {one.ident[:80]} is no text, so it can't be a variable", hint="Use a target"
        )
    return f"{one.mount.env}={text}"


def _in_memory(folder: str) -> None:
    """Whoever removes the step's folder unmounts it."""
    os.mkdir(folder, 0o700)
    options = b"mode=0700,size=64m"
    if _libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", _NOSUID_NODEV_NOEXEC, options) != 0:
        code = ctypes.get_errno()
        raise Internal(f"no memory file system for secrets: {os.strerror(code)}")


def _secret_file(one: Wanted, value: bytes, folder: str) -> Fitted:
    path = os.path.join(folder, SECRETS, str(one.index))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(value)
        os.fchown(fd, one.uid, one.gid)
        os.fchmod(fd, one.mode(0o400))
    return Fitted(target=one.target, source=path, folder=False, read_only=True)


async def _agent(stack: contextlib.AsyncExitStack, one: Wanted, session: Session) -> str | None:
    try:
        path = await stack.enter_async_context(session.ssh(one.ident))
    except NotFound as error:
        if not one.mount.required:
            return None
        raise NotFound(
            f"ssh agent {one.ident[:80]} is required and was not given", hint="Give it with --ssh"
        ) from error
    os.chown(path, one.uid, one.gid)
    os.chmod(path, one.mode(0o600))
    return path
