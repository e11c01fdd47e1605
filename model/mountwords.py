"""`-v SOURCE:TARGET[:OPTIONS]`, `--mount type=…`, `--tmpfs PATH[:OPTIONS]`. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from model.codec import convert_strict
from model.errors import InvalidInput
from model.quantity import parse_bool, parse_bytes
from model.spec import Mount

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_DOCKERS: Mapping[str, str] = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_BOOLS = ("readonly", "volume-nocopy")
"""Keys that stand for true without a value."""


def parse_volume(text: str, cwd: str) -> Mount:
    """A `-v` value. A relative source is made absolute by `cwd`; a name is a volume. Raises InvalidInput."""
    parts = text.split(":")
    if len(parts) == 1:
        return Mount(type="volume", target=_target(parts[0], text))
    if len(parts) > 3:
        raise InvalidInput(
            f"volume {text[:80]!r}: too many colons", hint="Write source:target or source:target:ro"
        )
    source, target = parts[0], _target(parts[1], text)
    words = parts[2].split(",") if len(parts) == 3 else []
    flags = _flags(words, text)
    if source.startswith((".", "~", "/")):
        path = source if source.startswith("/") else posixpath.join(cwd, source)
        return Mount(type="bind", source=posixpath.normpath(path), target=target, create_source=True, **flags)
    if not source:
        raise InvalidInput(f"volume {text[:80]!r}: the source is empty")
    return Mount(type="volume", source=source, target=target, **flags)


def _flags(words: list[str], text: str) -> dict[str, Any]:
    flags: dict[str, Any] = {}
    for word in words:
        if word in ("ro", "readonly"):
            flags["read_only"] = True
        elif word == "nocopy":
            flags["no_copy"] = True
        elif word in PROPAGATIONS:
            flags["propagation"] = word
        elif word not in ("rw", "z", "Z"):
            raise InvalidInput(f"volume {text[:80]!r}: unknown option {word[:20]!r}")
    return flags


def parse_mount(text: str) -> Mount:
    """A `--mount` value: comma separated `key=value`. Raises InvalidInput."""
    values: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = _DOCKERS.get(key, key)
        values[key] = value if equals or key not in _BOOLS else "true"
    kind = values.pop("type", "volume")
    if kind not in ("bind", "volume", "tmpfs"):
        raise InvalidInput(f"mount {text[:80]!r}: type must be bind, volume or tmpfs")
    target = _target(values.pop("target", ""), text)
    source = values.pop("source", "")
    made: dict[str, Any] = {"read_only": parse_bool(values.pop("readonly", "false"), "mount readonly")}
    if "bind-propagation" in values:
        made["propagation"] = values.pop("bind-propagation")
    if "volume-nocopy" in values:
        made["no_copy"] = parse_bool(values.pop("volume-nocopy"), "mount volume-nocopy")
    if "tmpfs-size" in values:
        made["tmpfs_size"] = parse_bytes(values.pop("tmpfs-size"))
    if "tmpfs-mode" in values:
        made["tmpfs_mode"] = _mode(values.pop("tmpfs-mode"), text)
    if values:
        raise InvalidInput(f"mount {text[:80]!r}: unknown key {next(iter(values))[:20]!r}")
    if kind == "bind" and not source.startswith("/"):
        raise InvalidInput(f"mount {text[:80]!r}: source must be an absolute path")
    return convert_strict(
        {"type": kind, "source": source, "target": target, **made}, Mount, f"mount {text[:80]!r}"
    )


def parse_tmpfs(text: str) -> Mount:
    """A `--tmpfs` value. Raises InvalidInput."""
    target, _, options = text.partition(":")
    made: dict[str, Any] = {}
    words: list[str] = []
    for word in filter(None, options.split(",")):
        key, _, value = word.partition("=")
        if key == "size":
            made["tmpfs_size"] = parse_bytes(value)
        elif key == "mode":
            made["tmpfs_mode"] = _mode(value, text)
        else:
            words.append(word)
    return Mount(type="tmpfs", target=_target(target, text), tmpfs_options=tuple(words), **made)


def _mode(digits: str, text: str) -> int:
    if not re.fullmatch(r"[0-7]{1,4}", digits):
        raise InvalidInput(f"mount {text[:80]!r}: mode {digits[:20]!r} is not octal", hint="Write 1777")
    return int(digits, 8)


def _target(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise InvalidInput(f"mount {text[:80]!r}: target {path[:60]!r} must be an absolute path")
    return path
