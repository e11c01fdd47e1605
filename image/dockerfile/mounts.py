"""`RUN --mount=type=…,target=…`: its fields. Pure.

BuildKit reads a mount twice: where it stands, and with variables expanded where it runs. `parsed` does both;
before expansion fields with a variable in them are not judged.
"""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Callable
from typing import Any, Literal

from image.dockerfile.faults import Mistake
from image.dockerfile.fields import variable
from image.dockerfile.instruction import Mount
from image.dockerfile.mends import nearest

_KINDS = ("bind", "cache", "secret", "ssh", "tmpfs")
_SHARING = ("locked", "private", "shared")
_KEYS = {
    "type": "kind", "from": "origin", "source": "source", "src": "source", "target": "target",
    "dst": "target", "destination": "target", "readonly": "read_only", "ro": "read_only",
    "readwrite": "writable", "rw": "writable", "required": "required", "size": "size", "id": "ident",
    "sharing": "sharing", "mode": "mode", "uid": "uid", "gid": "gid", "env": "env",
}  # fmt: skip
_BARE = ("readonly", "ro", "readwrite", "rw", "required")
_ALLOWED = {
    "required": ("secret", "ssh"),
    "size": ("tmpfs",),
    "mode": ("secret", "ssh", "cache"),
    "uid": ("secret", "ssh", "cache"),
    "gid": ("secret", "ssh", "cache"),
    "sharing": ("cache",),
    "env": ("secret",),
    "from": ("bind", "cache"),
}
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([kmgtp]?)(i?b)?\Z", re.IGNORECASE)
MAX_SIZE = 1 << 50
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


def parsed(text: str, expand: Callable[[str], str] | None = None) -> Mount:
    """Raises Mistake with an offset into `text`. Without `expand`, a mount whose fields hold variables keeps
    them in `source`, `target` and `ident`, and `text` to be parsed again."""
    found: dict[str, Any] = {}
    given: dict[str, int] = {}
    for field, at in _fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if key not in _KEYS:
            raise _unknown(key, at)
        if not equals and key not in _BARE:
            raise Mistake(f"{key} needs a value", at, f"Write {key}=value")
        if key == "from" and "$" in value[:-1]:
            raise Mistake(
                "from takes no variables", at, "Make a stage of it: FROM image:$VERSION AS name, from=name"
            )
        if expand is not None:
            value = expand(value)
        name = _KEYS[key]
        given["from" if name == "origin" else name] = at
        if not variable(value) or expand is not None or name in ("source", "target", "ident", "env"):
            target = "read_only" if name == "writable" else name
            found[target] = _typed(name, key, value if equals else "true", at)
    return _judged(found, given, text if expand is None and "$" in text else "")


def _fields(text: str) -> list[tuple[str, int]]:
    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error:
        raise Mistake(f"{text[:60]!r} can't be split at its commas", 0, "Close its quotes") from None
    found: list[tuple[str, int]] = []
    at = 0
    for field in fields:
        place = text.find(field, at)
        at = place if place >= 0 else at
        found.append((field, at))
        at += len(field)
    return found


def _typed(name: str, key: str, value: str, at: int) -> Any:
    match name:
        case "kind":
            return _word(key, value, _KINDS, at)
        case "sharing":
            return _word(key, value, _SHARING, at)
        case "read_only" | "required":
            return _truth(key, value, at)
        case "writable":
            return not _truth(key, value, at)
        case "mode":
            return _number(key, value, 8, at)
        case "uid" | "gid":
            return _number(key, value, 10, at)
        case "size":
            return _bytes(value, at)
    return value


def _judged(found: dict[str, Any], given: dict[str, int], text: str) -> Mount:
    kind = found.get("kind", "bind")
    if "kind" in found or "kind" not in given:
        for name, kinds in _ALLOWED.items():
            if name in given and kind not in kinds:
                hint = f"It is one of type={' and type='.join(kinds)}"
                raise Mistake(f"a {kind} mount has no {name}", given[name], hint)
    if kind == "secret":
        if found.get("source") and found.get("ident"):
            raise Mistake("source and id say the same thing", given["ident"], "Keep id")
        ident = found.get("source") or found.get("ident") or posixpath.basename(found.get("target", ""))
        if not ident:
            raise Mistake("a secret mount needs an id or a target", 0, "Write type=secret,id=name")
        found["ident"] = ident
        if "env" in found:
            found["env"] = found["env"] or ident
    if kind == "ssh":
        found["ident"] = found.get("ident") or "default"
    return Mount(**found, text=text)


def _word(key: str, value: str, known: tuple[str, ...], at: int) -> str:
    lower = value.lower()
    if lower not in known:
        near = nearest(lower, known)
        raise Mistake(
            f"{key}={value[:40]} is unknown",
            at,
            f"Did you mean {near}?" if near else f"It is {', '.join(known)}",
        )
    return lower


def _truth(key: str, value: str, at: int) -> bool:
    lower = value.lower()
    if lower not in _TRUE + _FALSE:
        raise Mistake(f"{key}={value[:40]} is neither true nor false", at)
    return lower in _TRUE


def _number(key: str, value: str, base: Literal[8, 10], at: int) -> int:
    digits = "01234567" if base == 8 else "0123456789"
    if not value or len(value) > 12 or value.strip(digits) or int(value, base) >= 1 << 32:
        raise Mistake(f"{key}={value[:40]} is no {'octal ' if base == 8 else ''}number", at)
    return int(value, base)


def _bytes(value: str, at: int) -> int:
    match = _SIZE.match(value.strip())
    if match is None:
        raise Mistake(f"size={value[:40]} is no size", at, "Write 64m say")
    size = int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))
    if size > MAX_SIZE:
        raise Mistake(f"size={value[:40]} is more than memory can be", at, "Write 64m say")
    return size


def _unknown(key: str, at: int) -> Mistake:
    near = nearest(key, _KEYS)
    return Mistake(f"a mount has no field {key[:40]!r}", at, f"Did you mean {near}?" if near else "")
