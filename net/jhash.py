"""The kernel's hash of bytes (linux/jhash.h, Bob Jenkins' lookup3) as nft has it. Pure.

For keys that nft 1.0 has no type for: an address somewhere in a packet is looked up by its hash.
"""

from __future__ import annotations

_INITIAL, _MASK = 0xDEADBEEF, 0xFFFFFFFF
MODULUS = 0xFFFFFFFF


def nft_jhash(data: bytes, seed: int) -> int:
    """As `jhash … mod 0xffffffff seed …`: the kernel scales the hash to the modulus (reciprocal_scale)."""
    return _jhash(data, seed) * MODULUS >> 32


def _jhash(data: bytes, seed: int) -> int:
    a = b = c = (_INITIAL + len(data) + seed) & _MASK
    while len(data) > 12:
        a, b, c = _mixed(*_added(a, b, c, data[:12]))
        data = data[12:]
    return _final(*_added(a, b, c, data)) if data else c


def _added(a: int, b: int, c: int, part: bytes) -> tuple[int, int, int]:
    words = [int.from_bytes(part[at : at + 4], "little") for at in (0, 4, 8)]
    return (a + words[0]) & _MASK, (b + words[1]) & _MASK, (c + words[2]) & _MASK


def _rotated(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & _MASK


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    for by in (4, 6, 8, 16, 19, 4):
        a = (a - c & _MASK) ^ _rotated(c, by)
        c = (c + b) & _MASK
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotated(b, by)) & _MASK
        a, b, c = b, c, a
    return b
