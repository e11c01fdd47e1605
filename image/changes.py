"""`--change` of import and commit: single Dockerfile instructions that edit an image's configuration.
Pure."""

from __future__ import annotations

import posixpath
import shlex
import signal
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from image.dockerfile.faults import DockerfileFault, Mistake
from image.dockerfile.instruction import Healthcheck, Onbuild, Shell
from image.dockerfile.jsonform import array
from image.dockerfile.parser import parse
from image.manifest import port_name, volume_path
from model.errors import Damaged, InvalidInput
from model.image import ImageConfig

KNOWN = (
    "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "SHELL", "STOPSIGNAL", "USER",
    "VOLUME", "WORKDIR",
)  # fmt: skip
_SHELL = ("/bin/sh", "-c")


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
            return {"cmd": _command(config, rest)}
        case "ENTRYPOINT":
            return {"entrypoint": _command(config, rest)}
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
            paths = (_checked(volume_path, p) for p in _listed(rest) or rest.split())
            return {"volumes": tuple(sorted({*config.volumes, *paths}))}
        case "WORKDIR":
            return {"workdir": posixpath.normpath(posixpath.join(config.workdir or "/", rest))}
        case "USER":
            if len(rest.split()) > 1:
                raise InvalidInput(f"--change: USER {rest[:80]!r} is no user or user:group")
            return {"user": rest}
        case "STOPSIGNAL":
            return {"stop_signal": _signal(rest)}
        case _:
            return _as_built(config, f"{word} {rest}")


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


def _command(config: ImageConfig, text: str) -> tuple[str, ...]:
    """The exec form, which may be empty, or the shell form."""
    words = _listed(text)
    return (*(config.shell or _SHELL), text) if words is None else words


def _listed(text: str) -> tuple[str, ...] | None:
    """None for what is no JSON array."""
    try:
        return array(text)
    except Mistake as mistake:
        raise InvalidInput(f"--change {text[:80]!r}: {mistake.message}", hint=mistake.hint) from mistake


def _as_built(config: ImageConfig, line: str) -> dict[str, Any]:
    """Of what has no form but a Dockerfile's."""
    try:
        (stage,) = parse(f"FROM scratch\n{line}\n".encode("utf-8", "replace")).stages
    except DockerfileFault as fault:
        raise InvalidInput(f"--change {line[:80]!r}: {fault.reason}", hint=fault.hint) from fault
    match stage.instructions:
        case (Healthcheck(check=check),):
            return {"health": check}
        case (Onbuild(expression=text),):
            return {"onbuild": (*config.onbuild, text)}
        case (Shell(words=words),):
            return {"shell": words}
        case _:
            raise InvalidInput(f"--change {line[:80]!r} is more than one instruction")


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
