"""The file from which the resolver learns what to serve. Pure.

Its first line is a whole state, each further line a change of what the lines before it said; the writer
begins a new file, renamed into place, when the changes outweigh the state. So a change costs writer and
reader what changed. Invariant: a line counts once its end is there; what follows is being written.
"""

from __future__ import annotations

import hashlib

from model.codec import decode_json, encode_json
from model.errors import InvalidInput
from model.spec import Struct
from net.resolver.change import StateChange, apply
from net.resolver.state import ResolverState, decode, encode


class Mark(Struct):
    """How far a file was read or written: the digest of its first line, and its bytes in all."""

    first: str = ""
    size: int = 0

    def reaches(self, other: Mark) -> bool:
        """Whether all is in it that the other marks."""
        return self.first == other.first and self.size >= other.size


class Reading(Struct):
    state: ResolverState = ResolverState()
    mark: Mark = Mark()
    refused: str = ""
    """Why a line makes no sense; it and the lines after it count for nothing."""


def whole(state: ResolverState) -> tuple[bytes, Mark]:
    """A new file."""
    data = encode(state) + b"\n"
    return data, _mark(data)


def line(change: StateChange) -> bytes:
    """To be appended."""
    return encode_json(change) + b"\n"


def read(data: bytes) -> Reading:
    """A file from its beginning. The first line needs no end: files are renamed into place."""
    end = data.find(b"\n") + 1 or len(data)
    try:
        begun = Reading(state=decode(data[:end]), mark=_mark(data[:end]))
    except InvalidInput as error:
        return Reading(mark=Mark(first=_mark(data[:end]).first, size=len(data)), refused=str(error))
    return read_on(begun, data[end:])


def read_on(reading: Reading, data: bytes) -> Reading:
    """The bytes behind the reading's mark."""
    end = data.rfind(b"\n") + 1
    mark = Mark(first=reading.mark.first, size=reading.mark.size + end)
    state, refused = reading.state, reading.refused
    for text in data[:end].split(b"\n")[:-1]:
        if refused:
            break
        try:
            state = apply(decode_json(text, StateChange, "a change of the resolver's state"), state)
        except InvalidInput as error:
            refused = str(error)
    return Reading(state=state, mark=mark, refused=refused)


def _mark(data: bytes) -> Mark:
    return Mark(first=hashlib.blake2b(data, digest_size=16).hexdigest(), size=len(data))
