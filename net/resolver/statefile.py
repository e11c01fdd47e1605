"""What stands in the file from which the resolver learns what to serve. Pure.

Its first line is a whole state, each further line a change of what the lines before it said; so a change
costs writer and reader what changed. `net.supervise.feed` writes the file, `net.supervise.place` reads it.
"""

from __future__ import annotations

from model.codec import decode_json, encode_json
from net.resolver.change import StateChange, apply
from net.resolver.state import ResolverState, decode, encode


def whole(state: ResolverState) -> bytes:
    return encode(state) + b"\n"


def line(change: StateChange) -> bytes:
    return encode_json(change) + b"\n"


def read(data: bytes) -> ResolverState:
    """A file from its beginning, in whole lines. Raises InvalidInput."""
    first, _, lines = data.partition(b"\n")
    return read_on(decode(first), lines)


def read_on(state: ResolverState, lines: bytes) -> ResolverState:
    """With the lines behind those that said it. Raises InvalidInput."""
    for text in lines.split(b"\n")[:-1]:
        state = apply(decode_json(text, StateChange, "a change of the resolver's state"), state)
    return state
