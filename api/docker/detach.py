"""The keys that detach a client from a terminal, as `ctrl-p,ctrl-q`. Pure.

Invariant: keys that turn out not to be the whole sequence are passed on, in their order.
"""

from __future__ import annotations

from model.errors import InvalidInput

DEFAULT = "ctrl-p,ctrl-q"
_SPECIAL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_keys(text: str) -> bytes:
    """`ctrl-a`, `ctrl-@` or one character each, comma separated. Raises InvalidInput."""
    made = bytearray()
    for key in text.split(","):
        if key.startswith("ctrl-") and len(key) == 6:
            last = key[5].lower()
            if last.isascii() and last.isalpha():
                made.append(ord(last) - 96)
                continue
            if last in _SPECIAL:
                made.append(_SPECIAL[last])
                continue
        elif len(key) == 1 and key.isascii():
            made.append(ord(key))
            continue
        raise InvalidInput(f"Invalid detach keys ({text[:40]}): Unknown character: '{key[:20]}'")
    return bytes(made)


class DetachKeys:
    """Bytes in; those to pass on, and whether the sequence was pressed, out. No keys: never."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        if not self._keys:
            return data, False
        data = self._held + data
        at = data.find(self._keys)
        if at >= 0:
            return data[:at], True
        held = next((n for n in range(len(self._keys) - 1, 0, -1) if data.endswith(self._keys[:n])), 0)
        self._held = data[len(data) - held :]
        return data[: len(data) - held], False
