"""Fields of tar headers: numbers, pax records, times, each checked. Pure.

Sources: POSIX.1-2017 pax, "pax Header Block" and "ustar Interchange Format"; GNU tar manual, "Basic Tar
Format".
"""

from __future__ import annotations

from collections.abc import Mapping

from model.errors import Damaged

LIMIT = 1 << 62
"""No size, owner or offset reaches this, so that sums of two stay below 2^63."""
_SPARSE = "GNU.sparse."
_SPARSE_PAIR = ("GNU.sparse.offset", "GNU.sparse.numbytes")


def text(field: bytes) -> bytes:
    """Up to the first NUL."""
    return field.partition(b"\0")[0]


def number(field: bytes, what: str, at: int, *, signed: bool = False) -> int:
    """An octal field, or GNU base-256 when its first bit is set. Raises Damaged."""
    plain = field.strip(b" \0")
    if plain.isdigit() and b"8" not in plain and b"9" not in plain:
        return int(plain, 8)
    if field[0] & 0x80:
        if field[0] & 0x40:
            value = int.from_bytes(field, "big", signed=True)
        else:
            value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        if not (-LIMIT if signed else 0) <= value < LIMIT:
            raise Damaged(f"tar: impossible {what} at byte {at}")
        return value
    digits = field.lstrip(b" \0").partition(b"\0")[0].rstrip(b" ")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise Damaged(f"tar: {what} is no octal number at byte {at}")
    return int(digits, 8)


def pax(data: bytes) -> dict[str, bytes]:
    """Records `length key=value\\n`. Raises Damaged. A key given twice keeps the last, one without a value is
    as if never given, as POSIX says; but the repeated pairs of GNU sparse 0.0 become one `GNU.sparse.map`, as
    in 0.1."""
    records: dict[str, bytes] = {}
    pairs: list[bytes] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 10)
        digits = data[position:space] if space > 0 else b""
        if not digits.isdigit():
            raise Damaged("tar: malformed pax record")
        end = position + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 2 or data[end - 1 : end] != b"\n" or not equals or not key:
            raise Damaged("tar: malformed pax record")
        name = key.decode("utf-8", "surrogateescape")
        if name in _SPARSE_PAIR:
            if name != _SPARSE_PAIR[len(pairs) % 2]:
                raise Damaged("tar: malformed sparse map")
            pairs.append(value)
        if value or name.startswith(_SPARSE):
            records[name] = value
        else:
            records.pop(name, None)
        position = end
    if pairs:
        records["GNU.sparse.map"] = b",".join(pairs)
    return records


def decimal(records: Mapping[str, bytes], key: str, otherwise: int) -> int:
    """A record's number, or `otherwise` where there is no such record. Raises Damaged."""
    value = records.get(key)
    if value is None:
        return otherwise
    return digits(value, f"pax {key}")


def digits(value: bytes, what: str) -> int:
    """Raises Damaged for anything but a decimal number below LIMIT."""
    if not value.isdigit() or len(value) > 19 or (result := int(value)) >= LIMIT:
        raise Damaged(f"tar: {what} is {value[:32]!r}")
    return result


def nanoseconds(records: Mapping[str, bytes], seconds: int) -> int:
    """The modification time: pax has fractions, the plain header whole seconds. Raises Damaged."""
    value = records.get("mtime")
    if value is None:
        return seconds * 1_000_000_000
    whole, _, fraction = value.partition(b".")
    count = whole.removeprefix(b"-")
    if not count.isdigit() or len(count) > 18 or (fraction and not fraction.isdigit()):
        raise Damaged(f"tar: pax mtime is {value[:32]!r}")
    total = int(count) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0") or b"0")
    return -total if whole.startswith(b"-") else total
