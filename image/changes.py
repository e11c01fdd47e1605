"""`--change` of import and commit: single Dockerfile instructions that edit an image's configuration.
Pure."""

from __future__ import annotations

import json
import posixpath
import shlex
import signal
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from image.manifest import port_name, volume_path
from model.errors import Damaged, InvalidInput
from model.image import ImageConfig

KNOWN = ("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")


def apply(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """The configuration after all changes, in order. Raises InvalidInput naming the change."""
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        word, rest = word.upper(), rest.strip()
        if word not in KNOWN:
            raise InvalidInput(f"--change {change[:80]!r}: {word[:20]!r} is none of {', '.join(KNOWN)}")
        if not rest or "\0" in rest:
            raise InvalidInput(f"--change {change[:80]!r} says nothing that can be used")
        config = msgspec.structs.replace(config, **_edit(config, word, rest))
    return config


def _edit(config: ImageConfig, word: str, rest: str) -> dict[str, Any]:
    match word:
        case "CMD":
            return {"cmd": _command(rest)}
        case "ENTRYPOINT":
            return {"entrypoint": _command(rest)}
        case "ENV":
            new = _pairs(rest)
            kept = [e for e in config.env if e.partition("=")[0] not in new]
            return {"env": (*kept, *(f"{k}={v}" for k, v in new.items()))}
        case "LABEL":
            return {"labels": {**config.labels, **_pairs(rest)}}
        case "EXPOSE":
            ports = (_checked(port_name, p) for p in rest.split())
            return {"exposed_ports": tuple(sorted({*config.exposed_ports, *ports}))}
        case "VOLUME":
            paths = (_checked(volume_path, p) for p in _json_list(rest) or rest.split())
            return {"volumes": tuple(sorted({*config.volumes, *paths}))}
        case "WORKDIR":
            return {"workdir": posixpath.normpath(posixpath.join(config.workdir or "/", rest))}
        case "USER":
            if len(rest.split()) > 1:
                raise InvalidInput(f"--change: USER {rest[:80]!r} is no user or user:group")
            return {"user": rest}
        case _:
            return {"stop_signal": _signal(rest)}


def _checked(check: Callable[[str], str], text: str) -> str:
    try:
        return check(text)
    except Damaged as error:
        raise InvalidInput(f"--change: {error.message}") from error


def _signal(text: str) -> str:
    """By name, with or without SIG, as `RTMIN+3`, or by number."""
    names = {s.name.removeprefix("SIG") for s in signal.Signals}
    word, _, offset = text.upper().removeprefix("SIG").partition("+")
    real_time = (
        word == "RTMIN" and offset.isdecimal() and int(offset[:3]) <= signal.SIGRTMAX - signal.SIGRTMIN
    )
    if (
        (word in names and not offset)
        or real_time
        or (text.isascii() and text.isdigit() and 0 < int(text[:4]) < signal.NSIG)
    ):
        return text
    raise InvalidInput(f"--change: STOPSIGNAL {text[:40]!r} is no signal")


def _command(text: str) -> tuple[str, ...]:
    """The exec form, or the shell form in the default shell."""
    return _json_list(text) or ("/bin/sh", "-c", text)


def _json_list(text: str) -> tuple[str, ...]:
    if not text.startswith("["):
        return ()
    try:
        words = json.loads(text)
    except ValueError:
        return ()
    return tuple(words) if isinstance(words, list) and all(isinstance(w, str) for w in words) else ()


def _pairs(text: str) -> dict[str, str]:
    """`A=b C="d e"`, or the old form `A b c`."""
    if "=" not in text.split()[0]:
        key, _, value = text.partition(" ")
        if not value.strip():
            raise InvalidInput(f"--change: {text[:80]!r} has no value", hint="Write KEY=value")
        return {key: value.strip()}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidInput(f"--change: {text[:80]!r}: {error}") from error
    pairs = dict(word.partition("=")[::2] for word in words)
    if "" in pairs:
        raise InvalidInput(f"--change: {text[:80]!r}: a key is empty")
    return pairs
