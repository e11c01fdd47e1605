"""A node → the instruction that it is: every rule that holds for one instruction in itself. Pure.

The source is Docker's Dockerfile reference. Invariant: what BuildKit builds is taken; what it refuses, or
takes and can never run, is refused with its place and what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from image.dockerfile import copies, fields
from image.dockerfile.building import Scene
from image.dockerfile.faults import Mistake
from image.dockerfile.flags import given
from image.dockerfile.instruction import (
    AnyInstruction,
    Arg,
    ArgPair,
    Cmd,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Pair,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from image.dockerfile.mends import keyword
from image.dockerfile.nodes import COMMENTS, Node
from model.spec import ExecProbe, HealthCheck, ShellProbe

_STAGE = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_WORD_QUOTE = re.compile(r"""\\.|"(?:[^"\\]|\\.)*"|'[^']*'|(?:(?<=[\s=,\[(])|\A)([“”„‟‘‚‛])""", re.DOTALL)
_COMMENTED = (
    "ADD",
    "ARG",
    "COPY",
    "ENV",
    "EXPOSE",
    "FROM",
    "LABEL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
)
_COMMENT = re.compile(r"[ \t]#+[ \t]")
_NANO = 1_000_000_000
MAX_ENTRIES = 1000
"""Words of a VOLUME or EXPOSE, pairs of an ENV, LABEL or ARG."""


def built(scene: Scene) -> AnyInstruction | From:
    """Raises Mistake."""
    node = scene.node
    if node.json and any("\0" in word for word in node.words):
        raise Mistake("a word holds a NUL, which no program can be given", node.text_at, "Delete the \\u0000")
    if (build := _BUILD.get(node.name)) is None:
        raise unknown(node)
    if not node.line.text.isascii():
        _typographic(scene)
    if "#" not in node.text or node.name not in _COMMENTED:
        return build(scene)
    return _commented(scene, build)


def _commented(scene: Scene, build: Callable[[Scene], AnyInstruction | From]) -> AnyInstruction | From:
    """What looks like a comment behind an instruction is part of it."""
    at = _comment(scene.node)
    try:
        made = build(scene)
    except Mistake as mistake:
        raise Mistake(mistake.message, mistake.at, mistake.hint if at < 0 else COMMENTS) from None
    if at >= 0:
        scene.warn("TrailingComment", "this is no comment, but part of the instruction", at, COMMENTS)
    return made


def _comment(node: Node) -> int:
    """Offset of its #, or -1."""
    if node.json or (node.name in ("ENV", "LABEL") and not node.old_form):
        return -1
    if node.name in ("ENV", "LABEL", "STOPSIGNAL", "USER", "WORKDIR"):
        found = _COMMENT.search(node.line.text, node.text_at)
        return found.start() + 1 if found else -1
    words = [index for index, word in enumerate(node.words) if index and word.startswith("#")]
    return node.offset(words[0]) if words else -1


def _typographic(scene: Scene) -> None:
    """A word processor's quote where a word begins, outside real quotes, quotes nothing."""
    for match in _WORD_QUOTE.finditer(scene.node.line.text):
        if match[1]:
            message = f"{match[1]} is no quote in a Dockerfile or a shell, but a letter like others"
            scene.warn("TypographicQuotes", message, match.start(1), 'Write plain quotes: "')
            return


def unknown(node: Node) -> Mistake:
    if not node.keyword:
        return Mistake("a continuation that continues nothing", node.start, "Delete it")
    hint, right = keyword(node.keyword)
    return Mistake(f"{node.keyword[:40]} is no instruction", node.start + right, hint)


def _from(scene: Scene) -> From:
    node = scene.node
    scene.some("an image")
    name = ""
    if len(node.words) == 3 and node.words[1].lower() == "as":
        name = node.words[2].lower()
        if not _STAGE.match(name):
            raise Mistake(
                f"{node.words[2][:60]!r} can't name a stage",
                node.offset(2),
                "A name begins with a letter and goes on with letters, digits, - _ and .",
            )
    elif len(node.words) != 1:
        raise _from_words(node)
    flags = given(node)
    platform = flags.text("platform")
    if "platform" in flags.values:
        if not platform:
            raise Mistake(
                "--platform needs a value", flags.at("platform"), "Write --platform=linux/arm64 say"
            )
        scene.judged(fields.platform, platform, flags.at("platform"))
    image = scene.quoted(node.words[0], node.offset(0))
    return From(**scene.common(), image=image, name=name, platform=platform)


def _from_words(node: Node) -> Mistake:
    words = node.words
    if len(words) == 2 and words[1].lower() == "as":
        return Mistake("AS needs a name", node.offset(1), f"Write FROM {words[0][:60]} AS name")
    if len(words) > 3 and words[1].lower() == "as":
        return Mistake(
            "a stage has one name", node.offset(3), "Delete what follows it; # begins a line of its own"
        )
    hint = (
        f"Write FROM {words[0][:60]} AS {words[-1][:40]}"
        if len(words) in (2, 3)
        else "Write FROM image AS name"
    )
    return Mistake("FROM takes an image, and then AS and a name", node.offset(1), hint)


def _cmd(scene: Scene) -> Cmd:
    given(scene.node)
    return Cmd(**scene.common(), command=scene.command())


def _entrypoint(scene: Scene) -> Entrypoint:
    given(scene.node)
    return Entrypoint(**scene.common(), command=scene.command())


def _shell(scene: Scene) -> Shell:
    node = scene.node
    given(node)
    if not node.json:
        scene.listed()
        raise Mistake("SHELL takes the JSON form alone", node.text_at, 'Write SHELL ["/bin/bash", "-c"]')
    if not node.words:
        raise Mistake("SHELL [] names no shell", node.text_at, 'Write SHELL ["/bin/sh", "-c"]')
    return Shell(**scene.common(), words=node.words)


def _pairs(scene: Scene) -> tuple[Pair, ...]:
    node = scene.node
    given(node)
    scene.some("a name and a value")
    if len(node.words) // 2 > MAX_ENTRIES:
        raise Mistake(f"{node.name} has more than {MAX_ENTRIES} pairs", node.start)
    pairs = []
    for index in range(0, len(node.words), 2):
        key, value = node.words[index : index + 2]
        at, value_at = node.offset(index), node.offset(index + 1)
        if not key.strip("\"'"):
            raise Mistake("there is no name before the =", at, f"Write {node.name} name=value")
        pairs.append(Pair(key=scene.quoted(key, at), value=scene.quoted(value, value_at)))
    return tuple(pairs)


def _env(scene: Scene) -> Env:
    return Env(**scene.common(), pairs=_pairs(scene), old_form=scene.node.old_form)


def _label(scene: Scene) -> Label:
    return Label(**scene.common(), pairs=_pairs(scene), old_form=scene.node.old_form)


def _arg(scene: Scene) -> Arg:
    node = scene.node
    given(node)
    scene.some("a name")
    if len(node.words) > MAX_ENTRIES:
        raise Mistake(f"ARG has more than {MAX_ENTRIES} names", node.start)
    args = []
    for index, word in enumerate(node.words):
        at = node.offset(index)
        key, equals, value = word.partition("=")
        if not key:
            raise Mistake("there is no name before the =", at, "Write ARG name or ARG name=value")
        scene.quoted(word, at)
        args.append(ArgPair(key=key, value=value if equals else None))
    return Arg(**scene.common(), args=tuple(args))


def _expose(scene: Scene) -> Expose:
    node = scene.node
    given(node)
    scene.some("a port")
    _few(node)
    for index, word in enumerate(node.words):
        scene.judged(fields.ports, scene.quoted(word, node.offset(index)), node.offset(index))
    return Expose(**scene.common(), ports=tuple(sorted(node.words)))


def _volume(scene: Scene) -> Volume:
    node = scene.node
    given(node)
    scene.listed()
    scene.some("a path")
    _few(node)
    paths = []
    for index, word in enumerate(node.words):
        path = word.strip()
        if not path.strip("\"'"):
            raise Mistake("a volume without a path", node.offset(index), "Name a folder, /data say")
        paths.append(scene.judged(fields.volume, scene.quoted(path, node.offset(index)), node.offset(index)))
    return Volume(**scene.common(), paths=tuple(paths))


def _few(node: Node) -> None:
    if len(node.words) > MAX_ENTRIES:
        raise Mistake(f"{node.name} has more than {MAX_ENTRIES} words", node.start)


def _user(scene: Scene) -> User:
    given(scene.node)
    return User(**scene.common(), user=scene.one("a user"))


def _workdir(scene: Scene) -> Workdir:
    given(scene.node)
    return Workdir(**scene.common(), path=scene.one("a path"))


def _maintainer(scene: Scene) -> Maintainer:
    given(scene.node)
    scene.some("a name")
    return Maintainer(**scene.common(), name=scene.node.words[0])


def _stopsignal(scene: Scene) -> StopSignal:
    given(scene.node)
    text = scene.one("a signal")
    return StopSignal(**scene.common(), signal=scene.judged(fields.stop_signal, text, scene.node.offset(0)))


def _onbuild(scene: Scene) -> Onbuild:
    node = scene.node
    given(node)
    child = node.child
    if child is None:
        raise Mistake("ONBUILD needs an instruction", node.start, "Write ONBUILD RUN …, say")
    if child.name in ("ONBUILD", "FROM", "MAINTAINER"):
        raise Mistake(f"{child.name} can't be a trigger of ONBUILD", child.start)
    docs = node.heredocs
    inner = Scene(_with_docs(child, node), scene.escape, [])
    built(inner)
    expression = node.line.text[child.start :]
    expression += "".join(f"\n{doc.content}{doc.name}" for doc in docs)
    return Onbuild(**scene.common(), expression=expression)


def _with_docs(child: Node, node: Node) -> Node:
    return Node(
        **{
            name: getattr(child, name)
            for name in child.__struct_fields__
            if name not in ("heredocs", "last_line")
        },
        heredocs=node.heredocs,
        last_line=node.last_line,
    )


def _healthcheck(scene: Scene) -> Healthcheck:
    node = scene.node
    scene.some("NONE, or CMD and a command")
    kind = node.words[0].upper()
    if kind == "NONE":
        if len(node.words) > 1 or node.json:
            raise Mistake("NONE takes nothing behind it", node.offset(1))
        return Healthcheck(**scene.common(), check=HealthCheck(disabled=True))
    if kind != "CMD":
        raise Mistake(
            f"HEALTHCHECK takes NONE or CMD, not {node.words[0][:40]!r}",
            node.offset(0),
            f"Write HEALTHCHECK CMD {node.text[:60]}",
        )
    if len(node.words) < 2:
        raise Mistake(
            "HEALTHCHECK CMD has no command", node.offset(0), "Write HEALTHCHECK CMD curl -f …, say"
        )
    flags = given(node)
    times: dict[str, Any] = {}
    for name in ("interval", "timeout", "start-period", "start-interval"):
        if name in flags.values:
            times[name.replace("-", "_")] = _duration(flags.text(name), flags.at(name)) / _NANO
    retries = flags.text("retries")
    if retries and (not retries.isdigit() or not retries.isascii() or len(retries) > 9):
        raise Mistake(f"--retries={retries[:40]} is no count", flags.at("retries"), "Write --retries=3 say")
    command = scene.command(1)
    probe = ShellProbe(command=command.text) if command.shell else ExecProbe(args=command.words)
    check = HealthCheck(probe=probe, retries=int(retries or 0), **times)
    return Healthcheck(**scene.common(), check=check, command=command)


def _duration(text: str, at: int) -> int:
    try:
        return fields.duration(text)
    except Mistake as mistake:
        hint = "HEALTHCHECK expands no variables" if fields.variable(text) else mistake.hint
        raise Mistake(mistake.message, at + mistake.at, hint) from None


_BUILD: Mapping[str, Callable[[Scene], AnyInstruction | From]] = {
    "ADD": copies.add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": copies.copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": copies.run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
