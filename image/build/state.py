"""What an instruction without files makes of an image's configuration, and its line of history. Pure.

Source: Docker's Dockerfile reference; where it says nothing, what BuildKit does. Invariant: a configuration
made here can be encoded, parsed again and run.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from msgspec.structs import replace

from image.build import written
from image.build.variables import Variables, with_env
from image.dockerfile import fields
from image.dockerfile.faults import DockerfileFault, Mistake
from image.dockerfile.instruction import (
    AnyInstruction,
    Cmd,
    Command,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Label,
    Onbuild,
    Pair,
    Shell,
    Spot,
    StopSignal,
    User,
    Volume,
)
from image.manifest import MAX_KEYS, volume_path
from model.errors import Damaged
from model.image import ImageConfig
from model.spec import ExecProbe, HealthCheck, ShellProbe

DEFAULT_SHELL = ("/bin/sh", "-c")
MAX_ID = (1 << 31) - 1
MAX_NAMES = 2000
"""Of variables, and of arguments."""
Fail = Callable[[str, str], DockerfileFault]


def edited(
    config: ImageConfig, instruction: AnyInstruction, variables: Variables, fail: Fail, *, keep_cmd: bool
) -> tuple[ImageConfig, str]:
    """The configuration and the line of history; an empty one: none. `keep_cmd`: a CMD stands before this
    ENTRYPOINT in its stage. Raises DockerfileFault, made by `fail` of a reason and a hint."""
    match instruction:
        case Env(pairs=pairs, spot=spot):
            return _env(config, pairs, variables, spot, fail)
        case Label(pairs=pairs, spot=spot):
            made = _pairs(pairs, variables, spot)
            labels = {**config.labels, **{pair.key: pair.value for pair in made}}
            if len(labels) > MAX_KEYS:
                raise fail(f"{len(labels)} labels are more than an image may have, {MAX_KEYS}", "Set fewer")
            return replace(config, labels=labels), written.pairs("LABEL", made)
        case Cmd(command=command):
            words = with_shell(config, command)
            return replace(config, cmd=words), written.command("CMD", words)
        case Entrypoint(command=command):
            words = with_shell(config, command)
            cmd = config.cmd if keep_cmd else None
            return replace(config, entrypoint=words, cmd=cmd), written.command("ENTRYPOINT", words)
        case Expose(ports=ports, spot=spot):
            return _expose(config, ports, variables, spot, fail)
        case Volume(paths=paths, spot=spot):
            return _volume(config, paths, variables, spot, fail)
        case User(user=text, spot=spot):
            user = variables.word(text, spot)
            _check_user(user, fail)
            return replace(config, user=user), f"USER {user}"
        case StopSignal(signal=text, spot=spot):
            signal = variables.word(text, spot)
            try:
                fields.stop_signal(signal)
            except Mistake as error:
                raise fail(error.message, error.hint) from error
            return replace(config, stop_signal=signal), f"STOPSIGNAL {signal}"
        case Shell(words=words):
            return replace(config, shell=words), written.listed("SHELL", words)
        case Onbuild(expression=text):
            return replace(config, onbuild=(*config.onbuild, text)), ""
        case Healthcheck(check=check, command=health_command):
            health = _health(check, health_command)
            return replace(config, health=health), written.health(health)
        case _:
            raise TypeError(f"{type(instruction).__name__} is not for the configuration alone")


def with_shell(config: ImageConfig, command: Command) -> tuple[str, ...]:
    return (*(config.shell or DEFAULT_SHELL), command.text) if command.shell else command.words


def joined(workdir: str, path: str) -> str:
    """An absolute, clean path; a slash (or `/.`) at the end stays as a slash, as it tells of a directory."""
    made = posixpath.normpath("/" + posixpath.join(workdir or "/", path or "./").lstrip("/"))
    slashed = path in ("", ".") or path.endswith(("/", "/."))
    return made + "/" if slashed and made != "/" else made


# -- parts --------------------------------------------------------------------------------------------
def _env(
    config: ImageConfig, pairs: tuple[Pair, ...], variables: Variables, spot: Spot, fail: Fail
) -> tuple[ImageConfig, str]:
    made = _pairs(pairs, variables, spot)
    for pair in made:
        if not pair.key or "=" in pair.key or "\0" in pair.key + pair.value:
            raise fail(f"{pair.key[:40]!r} is no name of a variable", "Write ENV NAME=value")
    env = with_env(config.env, *((pair.key, pair.value) for pair in made))
    if len(env) > MAX_NAMES:
        raise fail(f"{len(env)} variables are more than an environment may have, {MAX_NAMES}", "Set fewer")
    return replace(config, env=env), written.pairs("ENV", made)


def _pairs(pairs: tuple[Pair, ...], variables: Variables, spot: Spot) -> tuple[Pair, ...]:
    """All see what was before the instruction."""
    return tuple(
        Pair(key=variables.word(pair.key, spot), value=variables.word(pair.value, spot)) for pair in pairs
    )


def _expose(
    config: ImageConfig, texts: tuple[str, ...], variables: Variables, spot: Spot, fail: Fail
) -> tuple[ImageConfig, str]:
    ports = [port for text in texts for word in variables.words(text, spot) for port in _ports(word, fail)]
    every = {*config.exposed_ports, *ports}
    if len(every) > MAX_KEYS:
        raise fail(f"{len(every)} ports are more than an image may name, {MAX_KEYS}", "Name fewer")
    exposed = tuple(sorted(every))
    return replace(config, exposed_ports=exposed), written.listed("EXPOSE", ports)


def _ports(text: str, fail: Fail) -> tuple[str, ...]:
    try:
        return fields.ports(text)
    except Mistake as error:
        raise fail(error.message, error.hint) from error


def _volume(
    config: ImageConfig, texts: tuple[str, ...], variables: Variables, spot: Spot, fail: Fail
) -> tuple[ImageConfig, str]:
    paths = tuple(variables.word(text, spot) for text in texts)
    try:
        if not all(path.strip() for path in paths):
            raise Damaged("an empty path")
        clean = {volume_path(path) for path in paths}
    except Damaged as error:
        raise fail("no volume can be at an empty path or at /", "Name a directory: VOLUME /data") from error
    every = {*config.volumes, *clean}
    if len(every) > MAX_KEYS:
        raise fail(f"{len(every)} volumes are more than an image may name, {MAX_KEYS}", "Name fewer")
    return replace(config, volumes=tuple(sorted(every))), written.listed("VOLUME", paths)


def _check_user(user: str, fail: Fail) -> None:
    parts = user.split(":")
    if len(parts) > 2 or any(char.isspace() or char == "\0" for char in user):
        raise fail(f"{user[:40]!r} is no user", "Write name, uid, or user:group")
    for part in parts:
        if part.isascii() and part.isdigit() and int(part[:11]) > MAX_ID:
            raise fail(f"{part[:20]} is beyond the largest id, {MAX_ID}", "Give a smaller number or a name")


def _health(check: HealthCheck, command: Command | None) -> HealthCheck:
    if check.disabled or command is None:
        return check
    probe = ShellProbe(command=command.text) if command.shell else ExecProbe(args=command.words)
    return replace(check, probe=probe)
