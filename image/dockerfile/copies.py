"""COPY, ADD and RUN: the instructions that change files. Pure."""

from __future__ import annotations

from typing import Any

from image.dockerfile import fields
from image.dockerfile.building import Scene
from image.dockerfile.faults import Mistake
from image.dockerfile.flags import Given, given
from image.dockerfile.heredocs import heredoc
from image.dockerfile.instruction import Add, Copy, Heredoc, Mount, Run
from image.dockerfile.mounts import parsed

_NETWORKS = ("default", "none", "host")
_SECURITY = ("sandbox", "insecure")
MAX_SOURCES = 10_000


def copy(scene: Scene) -> Copy:
    flags = given(scene.node)
    origin = flags.text("from")
    if "from" in flags.values:
        at = flags.at("from")
        if not origin:
            raise Mistake("--from names nothing", at, "Name a stage, an image or a context")
        if "$" in origin[:-1]:
            raise Mistake(
                "--from takes no variables",
                at,
                "Make a stage of it: FROM image:$VERSION AS name, --from=name",
            )
    parents = flags.switch("parents") or False
    return Copy(**scene.common(), **_copying(scene, flags), origin=origin, parents=parents)


def add(scene: Scene) -> Add:
    flags = given(scene.node)
    return Add(
        **scene.common(),
        **_copying(scene, flags),
        checksum=_flag(scene, flags, "checksum", fields.checksum),
        keep_git_dir=flags.switch("keep-git-dir") or False,
        unpack=flags.switch("unpack"),
    )


def run(scene: Scene) -> Run:
    flags = given(scene.node)
    network, security = flags.text("network"), flags.text("security")
    for name, value, known in (("network", network, _NETWORKS), ("security", security, _SECURITY)):
        if name in flags.values and value not in known:
            raise Mistake(f"--{name}={value[:40]} is unknown", flags.at(name), f"It is {', '.join(known)}")
    mounts = tuple(_mount(text, flags.at("mount", index)) for index, text in enumerate(flags.many("mount")))
    command = scene.command()
    if not command.words and not command.text:
        if scene.node.json:
            raise Mistake("RUN [] runs nothing", scene.node.text_at, 'Write RUN ["program", "argument"]')
        scene.warn("EmptyCommand", "this RUN runs nothing", scene.node.start, "Delete it")
    return Run(
        **scene.common(),
        command=command,
        mounts=mounts,
        network=network,  # type: ignore[arg-type]
        security=security,  # type: ignore[arg-type]
        devices=flags.many("device"),
    )


def _mount(text: str, at: int) -> Mount:
    try:
        return parsed(text)
    except Mistake as mistake:
        raise Mistake(mistake.message, at + mistake.at, mistake.hint) from None


def _copying(scene: Scene, flags: Given) -> dict[str, Any]:
    node = scene.node
    scene.listed()
    if len(node.words) < 2:
        hint = (
            f"Write {node.name} {node.words[0][:40]} target"
            if node.words
            else f"Write {node.name} source target"
        )
        at = node.offset(0) if node.words else node.start
        raise Mistake(f"{node.name} needs a source and a target", at, hint)
    if len(node.words) > MAX_SOURCES:
        raise Mistake(f"{node.name} has more than {MAX_SOURCES} sources", node.text_at)
    *sources, target = node.words
    places = [node.offset(index) for index in range(len(node.words))]
    if not node.json and heredoc(target):
        raise Mistake(f"a heredoc can't be the target of {node.name}", places[-1], "Write the target last")
    if not target:
        raise Mistake(f"{node.name} has an empty target", places[-1], "Write . or / for a folder")
    docs = {doc.name: doc for doc in scene.files()}
    paths: list[str] = []
    inline: list[Heredoc] = []
    for word, at in zip(sources, places, strict=False):
        mark = None if node.json else heredoc(word)
        if mark is None:
            paths.append(scene.quoted(word, at))
        else:
            inline.append(_inline(mark, docs, at))
    return {
        "sources": tuple(paths),
        "target": scene.quoted(target, places[-1]),
        "heredocs": tuple(inline),
        "owner": _flag(scene, flags, "chown", fields.owner),
        "mode": _flag(scene, flags, "chmod", fields.mode),
        "link": flags.switch("link") or False,
        "exclude": flags.many("exclude"),
    }


def _inline(mark: Heredoc, docs: dict[str, Heredoc], at: int) -> Heredoc:
    if "/" in mark.name or mark.name in (".", ".."):
        raise Mistake(
            f"the heredoc {mark.name[:40]!r} can't be a file's name",
            at,
            "Its name is the file's: write <<EOF",
        )
    found = docs.get(mark.name)
    if found is None:
        raise Mistake(f"the heredoc {mark.name[:40]!r} has no content", at, "Write its name without spaces")
    return found


def _flag(scene: Scene, flags: Given, name: str, judge: Any) -> str:
    text = flags.text(name)
    if name in flags.values:
        if not text:
            raise Mistake(f"--{name} needs a value", flags.at(name))
        scene.quoted(text, flags.at(name))
        scene.judged(judge, text, flags.at(name))
    return text
