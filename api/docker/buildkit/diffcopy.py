"""A folder of a client by fsutil's protocol, as a tar. Pure.

The client tells all its files (STAT, in order, an empty one at the end) while we ask for contents (REQ) and
get them in pieces (DATA, an empty one at each end), several at once. Source: github.com/tonistiigi/fsutil,
send.go and receive.go. Invariant: contents that wait for their turn in the tar are no more than AHEAD bytes,
what is known of files that wait no more than MAX_HELD; a file is as long in the tar as it was told to be.
"""

from __future__ import annotations

import tarfile
from collections import deque
from collections.abc import Iterator

from api.docker.buildkit.messages import DATA, ERROR, FIN, REQUEST, STAT, Packet, Stat
from model.errors import Damaged, Exhausted, InvalidInput

AHEAD = 4 << 20
MOST_ASKED = 64
"""Files that are asked for at once."""
MAX_FILES = 1_000_000
MAX_HELD = 256 << 20
MAX_PATH = 4096
_EACH = 250
"""Bytes that one waiting file costs beside its names."""
_DIR, _LINK, _DEVICE, _PIPE, _SOCKET, _CHAR = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24, 1 << 21
KINDS = _DIR | _LINK | _DEVICE | _PIPE | _SOCKET | _CHAR
_BITS = ((1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000))
"""Of Go's os.FileMode, and of Unix: setuid, setgid, sticky."""


class _File:
    """One that is not in the tar yet, or not all of it. `ident` -1: it has no contents of its own."""

    __slots__ = ("asked", "begun", "came", "held", "ident", "stat")

    def __init__(self, stat: Stat, ident: int) -> None:
        self.stat = stat
        self.ident = ident
        self.asked = False
        self.begun = False
        self.came = 0
        self.held: list[bytes] = []

    @property
    def size(self) -> int:
        return self.stat.size if self.ident >= 0 else 0

    @property
    def cost(self) -> int:
        extra = sum(len(name) + len(value) for name, value in self.stat.xattrs.items())
        return _EACH + len(self.stat.path) + len(self.stat.link) + extra


class DiffCopy:
    """Feed it packets; each gives what is to be sent (Packet) and what comes next in the tar (bytes)."""

    def __init__(self) -> None:
        self.done = False
        """Whether the tar is whole, and the client has been told."""
        self._count = 0
        self._told = False
        self._held = 0
        self._waiting: deque[_File] = deque()
        self._unasked: deque[_File] = deque()
        self._asked: dict[int, _File] = {}
        self._ahead = 0

    def take(self, packet: Packet) -> Iterator[Packet | bytes]:
        """Raises Damaged, Exhausted, InvalidInput."""
        if packet.type == STAT:
            self._stat(packet.stat)
        elif packet.type == DATA:
            yield from self._data(packet)
        elif packet.type == ERROR:
            words = " ".join(packet.data[:400].decode("utf-8", "replace").split())
            raise InvalidInput(f"the client can't read its build context: {words}")
        elif packet.type != FIN or not self.done:
            raise Damaged(f"the client sent a packet of type {packet.type} out of turn")
        yield from self._write()
        yield from self._ask()
        if self._told and not self._waiting and not self.done:
            self.done = True
            yield bytes(2 * tarfile.BLOCKSIZE)
            yield Packet(type=FIN)

    def _stat(self, stat: Stat | None) -> None:
        if self._told:
            raise Damaged("the client told of a file after the last one")
        if stat is None:
            self._told = True
            return
        ident, self._count = self._count, self._count + 1
        if self._count > MAX_FILES:
            raise Exhausted(f"the build context has more than {MAX_FILES} files")
        long = len(stat.path) > MAX_PATH or len(stat.link) > MAX_PATH
        if long or not stat.path or b"\0" in stat.path + stat.link or stat.size < 0:
            raise Damaged(f"the client told of a file with no possible name or size: {stat.path[:80]!r}")
        if stat.mode & _SOCKET:
            return
        plain = not stat.mode & KINDS and not stat.link and stat.size
        file = _File(stat, ident if plain else -1)
        self._held += file.cost
        if self._held > MAX_HELD:
            raise Exhausted(
                f"what is known of the build context's files is more than {MAX_HELD} bytes",
                hint="Leave files out by .dockerignore, or use flota build",
            )
        self._waiting.append(file)
        if plain:
            self._unasked.append(file)

    def _data(self, packet: Packet) -> Iterator[bytes]:
        file = self._asked.get(packet.id)
        if file is None:
            raise Damaged("the client sent contents that it was not asked for")
        if not packet.data:
            if file.came != file.size:
                raise _changed(file)
            del self._asked[packet.id]
            self._ahead -= file.size
            return
        file.came += len(packet.data)
        if file.came > file.size:
            raise _changed(file)
        if file is self._waiting[0]:
            yield from self._head(file)
            yield packet.data
        else:
            file.held.append(packet.data)

    def _head(self, file: _File) -> Iterator[bytes]:
        """What comes before further contents of the first."""
        if not file.begun:
            file.begun = True
            yield header(file.stat, file.size)
        yield from file.held
        file.held.clear()

    def _write(self) -> Iterator[bytes]:
        """All files that are whole, and then what there is of the next."""
        while self._waiting:
            file = self._waiting[0]
            if file.size and not file.asked:
                return
            yield from self._head(file)
            if file.ident in self._asked:
                return
            yield bytes(-file.size % tarfile.BLOCKSIZE)
            self._held -= file.cost
            self._waiting.popleft()

    def _ask(self) -> Iterator[Packet]:
        while self._unasked and len(self._asked) < MOST_ASKED:
            file = self._unasked[0]
            if self._asked and self._ahead + file.size > AHEAD:
                return
            self._unasked.popleft()
            self._ahead += file.size
            file.asked = True
            self._asked[file.ident] = file
            yield Packet(type=REQUEST, id=file.ident)


def _changed(file: _File) -> InvalidInput:
    name = file.stat.path[:200].decode("utf-8", "replace")
    return InvalidInput(
        f"{name} of the build context changed while it was being sent",
        hint="Build when nothing writes to it, or leave it out by a .dockerignore file",
    )


def header(stat: Stat, size: int) -> bytes:
    """Of one entry of a tar (POSIX pax)."""
    entry = tarfile.TarInfo(_text(stat.path))
    entry.size = size
    entry.mode = stat.mode & 0o777 | sum(unix for go, unix in _BITS if stat.mode & go)
    entry.uid, entry.gid = stat.uid, stat.gid
    entry.type = _type(stat)
    entry.linkname = _text(stat.link)
    entry.devmajor, entry.devminor = _device(stat.major), _device(stat.minor)
    seconds, nanos = divmod(max(stat.modified, 0), 1_000_000_000)
    entry.mtime = seconds
    more = {f"SCHILY.xattr.{name}": _text(value) for name, value in stat.xattrs.items()}
    entry.pax_headers = {**more, "mtime": f"{seconds}.{nanos:09d}"} if nanos else more
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _type(stat: Stat) -> bytes:
    if stat.mode & _DIR:
        return tarfile.DIRTYPE
    if stat.mode & _LINK:
        return tarfile.SYMTYPE
    if stat.mode & _PIPE:
        return tarfile.FIFOTYPE
    if stat.mode & _DEVICE:
        return tarfile.CHRTYPE if stat.mode & _CHAR else tarfile.BLKTYPE
    return tarfile.LNKTYPE if stat.link else tarfile.REGTYPE


def _device(number: int) -> int:
    return number if 0 <= number < 1 << 21 else 0


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
