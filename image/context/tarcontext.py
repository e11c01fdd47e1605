"""A context that is a tar, plain or compressed: of standard input, a URL, or Docker's `POST /build`.

Owners are left out, as a build makes all its own; sockets have no place in a tar, devices are left out with a
warning. Files go to a `Sink` as they come: nothing of them is kept in memory. Invariant: a stream that is no
tar, or ends too early, is refused in one line, and what came of it belongs to nobody. Blocking.
"""

from __future__ import annotations

from io import BufferedReader, RawIOBase
from typing import BinaryIO, Literal, Protocol

from image.compression import decompressed_stream, kind_of
from image.context.nodes import Nodes, checked_target, shown
from image.context.reading import clamped
from image.extract import placed
from image.tarfields import number
from image.tarstream import Member, TarReader
from model.contexttree import CAPABILITY, MAX_XATTR, Entry
from model.errors import Damaged, FlotaError, InvalidInput

MAX_WARNINGS = 100
HEAD = 512
"""Bytes by which it is told what a stream is."""


class Writing(Protocol):
    """One file on its way into a sink."""

    def write(self, data: bytes) -> None: ...

    def zeros(self, count: int) -> None: ...

    def done(self) -> str:
        """Its digest."""
        ...

    def close(self) -> None:
        """Idempotent; what is not done leaves nothing behind."""
        ...


class Sink(Protocol):
    def begin(self) -> Writing:
        """Raises Exhausted."""
        ...


class Read:
    """What came: `nodes`, and what was left out."""

    def __init__(self) -> None:
        self.nodes = Nodes()
        self.warnings: list[str] = []


def begun(source: BinaryIO) -> tuple[bytes, BufferedReader]:
    """The first HEAD bytes of a stream, waited for however they drip, and a reader of all of it."""
    head = b""
    while len(head) < HEAD and (data := source.read(HEAD - len(head))):
        head += data
    return head, BufferedReader(_Again(head, source), 1 << 18)


class _Again(RawIOBase):
    """What was read already, then the rest."""

    def __init__(self, head: bytes, source: BinaryIO) -> None:
        self._head = head
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        if not data:
            data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def kind_of_stream(head: bytes) -> Literal["tar", "text", "empty"]:
    """By its first HEAD bytes, as Docker tells a context from a Dockerfile. A compressed one counts as a
    tar."""
    if not head:
        return "empty"
    if kind_of(head) or is_tar(head):
        return "tar"
    return "text"


def is_tar(head: bytes) -> bool:
    """Whether it begins with a tar's header, or an empty tar's end."""
    if len(head) < HEAD:
        return False
    block = head[:HEAD]
    if not any(block):
        return True
    try:
        return number(block[148:156], "checksum", 0) == sum(block) - sum(block[148:156]) + 8 * 32
    except FlotaError:
        return False


def read_tar(source: BufferedReader, sink: Sink) -> Read:
    """Raises Damaged, Exhausted, InvalidInput."""
    read = decompressed_stream(source)
    head = _first(read)
    if kind_of(head):
        raise InvalidInput(
            "the build context is compressed twice", hint="Compress the tar once, or not at all"
        )
    if not is_tar(head):
        raise InvalidInput(
            "the build context is no tar" if head else "the build context is empty",
            hint="Send a tar, plain or compressed by gzip, bzip2, xz or zstd",
        )
    rest = iter([head])
    found = Read()
    reader = TarReader(lambda count: next(rest, b"") or read(count))
    for member in reader:
        _take(found, member, reader, sink)
    reader.drain()
    return found


def _first(read: Reader) -> bytes:
    head = b""
    while len(head) < HEAD and (data := read(HEAD - len(head))):
        head += data
    return head


class Reader(Protocol):
    def __call__(self, count: int, /) -> bytes: ...


def _take(found: Read, member: Member, reader: TarReader, sink: Sink) -> None:
    name = member.name
    if member.kind == "hardlink":
        found.nodes.link(name, member.link)
    elif member.kind in ("char", "block"):
        if len(found.warnings) < MAX_WARNINGS:
            found.warnings.append(f"{shown(name)} is a device and is left out of the build context")
    elif member.kind == "file":
        found.nodes.add(name, _entry(member, digest=_content(member, reader, sink)))
    elif member.kind == "symlink":
        found.nodes.add(name, _entry(member, target=checked_target(name, member.link)))
    else:
        found.nodes.add(name, _entry(member))


def _entry(member: Member, *, digest: str = "", target: bytes = b"") -> Entry:
    capability = member.xattrs.get(CAPABILITY)
    if capability is not None and len(capability) > MAX_XATTR:
        raise Damaged(f"{shown(member.name)} has a capability of {len(capability)} bytes")
    return Entry(
        name=b"",
        kind=_KINDS[member.kind],
        mode=member.mode,
        size=member.size if member.kind == "file" else 0,
        mtime_ns=clamped(member.mtime_ns),
        digest=digest,
        target=target,
        xattrs={} if capability is None else {CAPABILITY: capability},
    )


_KINDS: dict[str, Literal["file", "tree", "link", "fifo"]] = {
    "file": "file",
    "dir": "tree",
    "symlink": "link",
    "fifo": "fifo",
}


def _content(member: Member, reader: TarReader, sink: Sink) -> str:
    writing = sink.begin()
    try:
        if member.regions is None:
            for piece in reader.content():
                writing.write(piece)
            return writing.done()
        at = 0
        for offset, piece in placed(member, reader):
            if offset > at:
                writing.zeros(offset - at)
            writing.write(piece)
            at = offset + len(piece)
        if at < member.size:
            writing.zeros(member.size - at)
        return writing.done()
    finally:
        writing.close()
