"""Docker's rules about variables, images, paths and ports. Pure.

The base images' own variables aren't known here: of a stage on such a base only what is surely wrong is told,
a name that nearly is a known one, or an ARG from before the first FROM that the stage does not declare.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import immutables

from image import reference
from image.dockerfile import fields
from image.dockerfile.checknames import keyword, warned
from image.dockerfile.faults import Mistake
from image.dockerfile.instruction import (
    Add,
    Arg,
    Copy,
    Dockerfile,
    Env,
    Expose,
    From,
    Instruction,
    Label,
    Run,
    StopSignal,
    User,
    Volume,
    Warned,
    Workdir,
)
from image.dockerfile.mends import nearest
from image.dockerfile.words import expand
from model.errors import InvalidInput
from model.spec import Struct

PLATFORM = (
    *("TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT", "TARGETOSVERSION", "TARGETSTAGE"),
    *("BUILDPLATFORM", "BUILDOS", "BUILDARCH", "BUILDVARIANT", "BUILDOSVERSION"),
)
"""Known before the first FROM without being declared."""
PREDEFINED = tuple(
    name
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (proxy, proxy.lower())
)
"""Arguments that need no ARG."""
_NAME = r"'[^']*'|\$(?:(\w+)|\{(\w+)(:?[-+?])?)"
_USES = {escape: re.compile(rf"{re.escape(escape)}.|{_NAME}", re.DOTALL) for escape in ("\\", "`")}


_USUAL = dict.fromkeys(PLATFORM, "") | {
    **{f"{side}PLATFORM": "linux/amd64" for side in ("TARGET", "BUILD")},
    **{f"{side}OS": "linux" for side in ("TARGET", "BUILD")},
    **{f"{side}ARCH": "amd64" for side in ("TARGET", "BUILD")},
}
_MAX_GUESSES, _MAX_CANDIDATES, _MAX_IMAGE = 20, 64, 1024


class _Known(Struct):
    """What is set at a place of a stage: name → whether this file sets it. `closed`: nothing else can be,
    as on `scratch`."""

    names: immutables.Map[str, bool]
    closed: bool
    workdir: bool


class _Guesses:
    """Nearest names, as long as that costs little."""

    def __init__(self) -> None:
        self._made = 0

    def nearest(self, word: str, known: Mapping[str, bool]) -> str:
        """Of those that are marked."""
        if self._made >= _MAX_GUESSES or len(known) > _MAX_CANDIDATES or len(word) > _MAX_CANDIDATES:
            return ""
        self._made += 1
        return nearest(word, [name for name, marked in known.items() if marked])


def words(dockerfile: Dockerfile, ignored: Callable[[str], bool] | None) -> Iterator[Warned]:
    declared = {one.key: one.value for arg in dockerfile.args for one in arg.args}
    stages: dict[str, _Known] = {}
    guesses = _Guesses()
    defaults = _defaults(dockerfile)
    for number, stage in enumerate(dockerfile.stages):
        yield from _from(stage.head, declared, guesses)
        if fields.variable(stage.head.image) and not _plain(stage.head.image, defaults, dockerfile.escape):
            yield warned(
                "InvalidDefaultArgInFrom",
                f"without build arguments {stage.head.image[:80]} is no image",
                stage.head,
                "Give the ARG a default that is one",
            )
        known = stages.get(stage.head.image.lower())
        if known is None:
            start = immutables.Map(dict.fromkeys(("PATH", *PREDEFINED), False))
            known = _Known(names=start, closed=stage.head.image == "scratch", workdir=False)
        for one in stage.instructions:
            yield from _unset(one, known, declared, dockerfile.escape, guesses)
            yield from _one(one, known, ignored)
            known = _after(one, known)
        stages[str(number)] = known
        if stage.head.name:
            stages[stage.head.name] = known


def used(text: str, escape: str = "\\") -> Iterator[tuple[str, bool]]:
    """Names of variables in a text, and whether there is a word for the case that one is not set."""
    for match in _USES[escape].finditer(text):
        if name := match[1] or match[2]:
            yield name, bool(match[3])


def _from(head: From, declared: Mapping[str, str | None], guesses: _Guesses) -> Iterator[Warned]:
    for name, excused in (*used(head.image), *used(head.platform)):
        if name not in declared and name not in PLATFORM and not excused:
            near = guesses.nearest(name, dict.fromkeys((*declared, *PLATFORM), True))
            hint = f"Did you mean {near}?" if near else f"Write ARG {name} before the first FROM"
            yield warned("UndefinedArgInFrom", f"{name} is not declared before the first FROM", head, hint)
    if head.platform.strip("{}$") == "TARGETPLATFORM":
        message = "--platform=$TARGETPLATFORM is what FROM does anyway"
        yield warned("RedundantTargetPlatform", message, head, "Delete it")
    elif head.platform and not fields.variable(head.platform):
        parts = head.platform.split("/")
        if not any(part in head.name for part in parts[:2]):
            yield warned(
                "FromPlatformFlagConstDisallowed",
                f"this stage is always {head.platform[:40]}, whatever platform is asked for",
                head,
                "Use $BUILDPLATFORM, or build with --platform",
            )


def _defaults(dockerfile: Dockerfile) -> dict[str, str]:
    """What the ARGs before the first FROM come to without any given, on a usual platform."""
    values = dict(_USUAL)
    for arg in dockerfile.args:
        for one in arg.args:
            if one.value is not None:
                values[one.key] = _expanded(one.value, values, dockerfile.escape) or ""
    return values


def _expanded(text: str, values: Mapping[str, str], escape: str) -> str | None:
    """None: only the build itself can tell."""
    try:
        return expand(text[:_MAX_IMAGE], values.get, escape=escape)[:_MAX_IMAGE]
    except InvalidInput:
        return None


def _plain(image: str, values: Mapping[str, str], escape: str) -> bool:
    """Whether defaults alone make an image's name of it."""
    text = _expanded(image, values, escape)
    if text is None:
        return True
    try:
        reference.parse(text)
    except InvalidInput:
        return False
    return True


def _texts(one: Instruction) -> list[str]:
    """What variables are expanded in."""
    match one:
        case Env() | Label():
            return [text for pair in one.pairs for text in (pair.key, pair.value)]
        case Arg():
            return [arg.value for arg in one.args if arg.value]
        case Add():
            return [*one.sources, one.target, one.owner, one.mode, one.checksum]
        case Copy():
            return [*one.sources, one.target, one.owner, one.mode]
        case Run():
            return [mount.text for mount in one.mounts]
        case Expose():
            return list(one.ports)
        case Volume():
            return list(one.paths)
        case User():
            return [one.user]
        case Workdir():
            return [one.path]
        case StopSignal():
            return [one.signal]
    return []


def _unset(
    one: Instruction, known: _Known, declared: Mapping[str, str | None], escape: str, guesses: _Guesses
) -> Iterator[Warned]:
    told: set[str] = set()
    for text in _texts(one):
        if "$" not in text:
            continue
        for name, excused in used(text, escape):
            if excused or name in known.names or name in told or name.isdigit():
                continue
            told.add(name)
            message = f"the variable {name[:60]} is not set here"
            if name in declared or name in PLATFORM:
                yield warned("UndefinedVar", message, one, f"Write ARG {name} in this stage too")
                continue
            near = guesses.nearest(name, known.names)
            if near or known.closed:
                hint = f"Did you mean {near}?" if near else f"Write ARG {name} or ENV {name}=… before"
                yield warned("UndefinedVar", message, one, hint)


def _after(one: Instruction, known: _Known) -> _Known:
    match one:
        case Env():
            names = [pair.key for pair in one.pairs]
        case Arg():
            names = [arg.key for arg in one.args]
        case Workdir():
            return _Known(names=known.names, closed=known.closed, workdir=True)
        case _:
            return known
    found = known.names.update(dict.fromkeys(names, True))
    return _Known(names=found, closed=known.closed, workdir=known.workdir)


def _one(one: Instruction, known: _Known, ignored: Callable[[str], bool] | None) -> Iterator[Warned]:
    if isinstance(one, Workdir) and not known.workdir and one.path.strip("\"'")[:1] not in ("/", "$"):
        yield warned(
            "WorkdirRelativePath",
            f"where {one.path[:60]} is depends on the base image's own WORKDIR",
            one,
            f"Write WORKDIR /{one.path[:60]}",
        )
    if isinstance(one, Expose):
        yield from _ports(one)
    if isinstance(one, Copy) and ignored is not None and not one.origin:
        for source in one.sources:
            if (
                "$" not in source
                and "://" not in source
                and not source.startswith("git@")
                and ignored(source)
            ):
                message = f"the ignore file leaves {source[:80]} out of the context"
                yield warned("CopyIgnoredFile", message, one, "Take it out of the ignore file")


def _ports(one: Expose) -> Iterator[Warned]:
    for word in one.ports:
        try:
            fields.ports(word)
        except Mistake:
            continue
        _, _, protocol = word.partition("/")
        if protocol != protocol.lower():
            message = f"the protocol of {word[:40]} is not in lower case"
            yield warned("ExposeProtoCasing", message, one, f"Write {word[:40].lower()}")
        if ":" in word:
            message = f"{keyword(one)} {word[:40]}: an address or a host's port means nothing here"
            yield warned("ExposeInvalidFormat", message, one, f"Write {word[:40].rpartition(':')[2]}")
