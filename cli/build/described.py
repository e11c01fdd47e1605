"""`flota build --call outline|targets`: what a Dockerfile offers, as a table or JSON. Pure.

The client alone tells it: nothing is sent, so a Dockerfile that only a host can get is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cli.render import Column, clean, table
from model.build import BuildRequest
from model.errors import InvalidInput, Unsupported
from model.spec import Struct

if TYPE_CHECKING:
    from image.build.described import Described, Target

CALLS = ("build", "check", "outline", "targets")


class Call(Struct):
    what: str = "build"
    json: bool = False

    @property
    def offered(self) -> bool:
        return self.what in ("outline", "targets")


def call(text: str) -> Call:
    """Of `outline`, `targets,format=json`. Raises InvalidInput."""
    what, _, rest = text.partition(",")
    if what not in CALLS:
        raise InvalidInput(f"--call {text[:40]!r} is not known", hint=f"Write {', '.join(CALLS)}")
    if rest not in ("", "format=text", "format=json") or (rest and what in ("build", "check")):
        raise InvalidInput(f"--call {what}: {rest[:40]!r} is not known", hint=f"Write --call {what}")
    return Call(what=what, json=rest == "format=json")


def told(asked: Call, text: bytes, request: BuildRequest) -> str:
    """Raises DockerfileFault, Unsupported."""
    if not text:
        raise Unsupported(
            f"--call {asked.what} reads the Dockerfile here, and this context is elsewhere",
            hint="Give the Dockerfile by --file",
        )
    from image.build.described import described, targets  # few builds are asked what they offer
    from image.build.graph import Scene
    from image.dockerfile.parser import parse
    from image.platforms import host_platform

    dockerfile = parse(text, file=request.file)
    if asked.what == "targets":
        found = targets(dockerfile)
        return _json(found) if asked.json else table(_TARGETS, found)
    own = host_platform()
    names = {one.name: one.ref if one.kind == "image" else "" for one in request.contexts if one.name}
    outline = described(
        dockerfile,
        Scene(
            args=request.args,
            target=request.target,
            platform=own,
            own=own,
            contexts=names,
            file=request.file,
        ),
    )
    return _json(outline) if asked.json else _outline(outline)


def _outline(found: Described) -> str:
    head = f"TARGET: {clean(found.target)}\n" + (
        f"DESCRIPTION: {clean(found.description)}\n" if found.description else ""
    )
    parts = [table(_ARGS, found.args)] if found.args else []
    parts += [table(_SECRETS, found.secrets)] if found.secrets else []
    parts += [table(_SSH, found.ssh)] if found.ssh else []
    return "\n".join((head, *parts))


def _json(value: Described | tuple[Target, ...]) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


_TARGETS: list[Column] = [
    ("TARGET", lambda one: f"{one.name} (default)" if one.default else one.name),
    ("BASE", lambda one: one.base),
    ("DESCRIPTION", lambda one: one.description),
]
_ARGS: list[Column] = [
    ("BUILD ARG", lambda one: one.name),
    ("VALUE", lambda one: one.value or ""),
    ("DESCRIPTION", lambda one: one.description),
]
_SECRETS: list[Column] = [
    ("SECRET", lambda one: one.name),
    ("REQUIRED", lambda one: "yes" if one.required else ""),
]
_SSH: list[Column] = [("SSH", lambda one: one.name), _SECRETS[1]]
