"""A blob in pieces of equal size, and which of them there are. Pure.

A set of pieces is an int: bit n stands for piece n. A blob has 4096 at most, so that a set is short enough to
be told often.
"""

from __future__ import annotations

from model.errors import Damaged

SMALLEST = 1 << 20
MOST = 4096


def piece_size(size: int) -> int:
    """Of a blob of so many bytes."""
    piece = SMALLEST
    while -(-size // piece) > MOST:
        piece *= 2
    return piece


def count(size: int) -> int:
    return -(-size // piece_size(size))


def every(size: int) -> int:
    """The set of all pieces."""
    return (1 << count(size)) - 1


def span(number: int, size: int) -> tuple[int, int]:
    """(offset, length) of a piece in a blob of `size` bytes."""
    piece = piece_size(size)
    return number * piece, min(piece, size - number * piece)


def prefix(have: int, size: int) -> int:
    """Bytes from the start without a gap."""
    whole = (~have & (have + 1)).bit_length() - 1
    return min(whole * piece_size(size), size)


def within(length: int, size: int) -> int:
    """The pieces that lie whole in the first `length` bytes."""
    return every(size) if length >= size else (1 << (length // piece_size(size))) - 1


def members(have: int, limit: int) -> list[int]:
    """The lowest so many pieces of a set, ascending."""
    found: list[int] = []
    while have and len(found) < limit:
        lowest = have & -have
        found.append(lowest.bit_length() - 1)
        have ^= lowest
    return found


def encode(have: int) -> str:
    return f"{have:x}"


def decode(text: str, size: int) -> int:
    """Raises Damaged for what is no set of pieces of such a blob."""
    try:
        have = int(text, 16) if len(text) <= MOST // 4 + 1 else -1
    except ValueError:
        have = -1
    if not 0 <= have <= every(size):
        raise Damaged(f"{text[:40]!r} is no set of pieces")
    return have
