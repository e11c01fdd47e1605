"""Maps of sparse files in tar archives: the old GNU header, and pax 0.0, 0.1 and 1.0. Pure.

Source: GNU tar manual, "Storing Sparse Files". A map is the regions that hold data, as (offset, length), in
order. Invariant: regions ascend without overlap and end within the file, and there are boundedly many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from image import tarfields
from model.errors import Damaged

Regions = tuple[tuple[int, int], ...]
MAX_REGIONS = 65_536
_IN_HEADER, _IN_EXTENSION, _PAIR = 4, 21, 24


def from_header(header: bytes, read_block: Callable[[], bytes], at: int) -> tuple[Regions, int]:
    """(regions, real size) of a member of type `S`; further blocks of its map are read."""
    numbers = _pairs(header[386:], _IN_HEADER, at)
    more = header[482] != 0
    while more:
        block = read_block()
        numbers += _pairs(block, _IN_EXTENSION, at)
        more = block[504] != 0
        if len(numbers) > 2 * MAX_REGIONS:
            raise Damaged("tar: a sparse map with too many regions")
    size = tarfields.number(header[483:495], "real size", at)
    return checked(numbers, size), size


def from_text(text: bytes, size: int) -> Regions:
    """Of a comma-separated map (pax 0.0, 0.1)."""
    parts = text.split(b",") if text else []
    if len(parts) > 2 * MAX_REGIONS:
        raise Damaged("tar: a sparse map with too many regions")
    return checked([tarfields.digits(part, "sparse map") for part in parts], size)


def from_content(read_block: Callable[[], bytes], size: int) -> tuple[Regions, int]:
    """(regions, bytes read) of pax 1.0, whose map opens the content: a count, then the numbers, a line each,
    filled up to whole blocks."""
    data = b""
    taken = 0
    wanted = 1
    lines: list[bytes] = []
    while len(lines) < wanted:
        block = read_block()
        taken += len(block)
        *whole, data = (data + block).split(b"\n")
        if len(data) > 32 and len(lines) + len(whole) < wanted:
            raise Damaged("tar: malformed sparse map")
        if not lines and whole:
            count = tarfields.digits(whole[0], "sparse map")
            if count > MAX_REGIONS:
                raise Damaged("tar: a sparse map with too many regions")
            wanted = 1 + 2 * count
        lines += whole
    return checked([tarfields.digits(line, "sparse map") for line in lines[1:wanted]], size), taken


def checked(numbers: Sequence[int], size: int) -> Regions:
    """Offset, length, offset, length …; raises Damaged."""
    if len(numbers) % 2:
        raise Damaged("tar: malformed sparse map")
    end = 0
    regions = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    for offset, length in regions:
        if offset < end or length > size - offset:
            raise Damaged("tar: regions of a sparse file overlap or leave the file")
        end = offset + length
    return tuple(region for region in regions if region[1])


def _pairs(block: bytes, count: int, at: int) -> list[int]:
    numbers: list[int] = []
    for start in range(0, count * _PAIR, _PAIR):
        if block[start] == 0:
            break
        numbers.append(tarfields.number(block[start : start + 12], "sparse offset", at))
        numbers.append(tarfields.number(block[start + 12 : start + 24], "sparse length", at))
    return numbers
