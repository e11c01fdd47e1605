"""Good habits of Dockerfiles that Docker's own checks don't ask for. Pure.

Their source is Docker's guide of best practices. Each finding says what happens otherwise; a stage that no
image is made of is judged less.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from image.dockerfile.checknames import warned
from image.dockerfile.instruction import (
    Add,
    Cmd,
    Copy,
    Dockerfile,
    Entrypoint,
    From,
    Run,
    Stage,
    User,
    Warned,
)

_APT = re.compile(r"(?<![\w-])apt(?:-get)?\b(?:[ \t]+-[^\s;&|]+)*[ \t]+(update|install|upgrade)\b[^;&|\n]*")
_LISTS = "/var/lib/apt"
_ARCHIVE = re.compile(r"\.(?:tar|tgz|tbz2?|txz|tzst|tar\.(?:gz|bz2|xz|zst|lzma))\Z", re.IGNORECASE)
_REMOTE = re.compile(r"(?:https?://|git://|ssh://|git@)")
_YES = re.compile(r"(?:\A|\s)(?:-[a-zA-Z]*y[a-zA-Z]*|--yes|--assume-yes|-qq)(?:\s|\Z)")
_REPAIR = re.compile(r"\s-[a-z]*f|--fix-broken")
_SUDO = re.compile(r"(?:\A|[;&|(\n])\s*sudo\s")
_LOST = re.compile(r"(cd|export|alias|source|\.)\s+[^;&|\n]+\Z")
_INSTALL = re.compile(
    r"\b(?:npm (?:ci|i|install)|yarn(?: install)?|pnpm (?:i|install)|pip3? install|poetry install"
    r"|go mod download|bundle install|composer install|mvn dependency\S*|cargo fetch)\b"
)
_SHELL = re.compile(r"(?:\A|/)(?:a|ba|da|k|z)?sh\Z|\A(?:env|eval|envsubst|su|gosu)\Z")
_VARIABLE = re.compile(r"\$(?:[A-Za-z_]|\{[A-Za-z_]|\()")
_OPERATORS = ("&&", "||", "|", ";", ">", ">>", "<", "2>&1")
MANY_RUNS = 3
"""So many RUN in a row, each a layer, are told of."""


def habits(dockerfile: Dockerfile) -> Iterator[Warned]:
    stages = {stage.head.name: stage for stage in dockerfile.stages if stage.head.name}
    for stage in dockerfile.stages:
        yield from _base(stage.head, stages)
        yield from _entry(stage)
        yield from _exec_form(stage)
        yield from _apt(stage)
        yield from _runs(stage)
        yield from _copies(stage)
    yield from _user(dockerfile.stages[-1], stages)


def _text(run: Run) -> str:
    """What runs, as far as it can be read."""
    if run.command.words:
        return " ".join(run.command.words)
    if run.command.heredocs:
        return "\n".join((run.command.text, *(doc.content for doc in run.command.heredocs)))
    return run.command.text


def _base(head: From, stages: dict[str, Stage]) -> Iterator[Warned]:
    image = head.image
    if image == "scratch" or image.lower() in stages or "$" in image or "@" in image:
        return
    tag = image.rpartition("/")[2].partition(":")[2]
    if tag in ("", "latest"):
        message = f"{image[:80]} is whatever is latest when it is pulled"
        yield warned(
            "UntaggedBase", message, head, f"Name a version: {image[:80].partition(':')[0]}:1.2, say"
        )


def _entry(stage: Stage) -> Iterator[Warned]:
    entries = [one for one in stage.instructions if isinstance(one, Entrypoint)]
    commands = [one for one in stage.instructions if isinstance(one, Cmd)]
    if not entries or not commands:
        return
    entry, command = entries[-1], commands[-1]
    if entry.command.shell:
        message = "an ENTRYPOINT in shell form ignores CMD and every argument"
        yield warned("EntrypointIgnoresArguments", message, entry, 'Write ENTRYPOINT ["program"]')
    elif command.command.shell and entry.command.words:
        message = 'CMD gives ENTRYPOINT its arguments; in shell form these are "/bin/sh", "-c" and the text'
        yield warned("CmdForArguments", message, command, 'Write CMD ["argument"]')


def _exec_form(stage: Stage) -> Iterator[Warned]:
    """No shell reads an exec form."""
    for one in stage.instructions:
        if not isinstance(one, Run | Cmd | Entrypoint) or not one.command.words:
            continue
        program, *rest = one.command.words
        if _SHELL.search(program):
            continue
        for word in rest:
            if word in _OPERATORS or _VARIABLE.search(word):
                message = f"no shell reads an exec form: {word[:40]} stays as it is"
                hint = 'Write ["/bin/sh", "-c", "…"], or the shell form'
                yield warned("NoShellInExecForm", message, one, hint)
                break


def _apt(stage: Stage) -> Iterator[Warned]:
    for one in stage.instructions:
        if not isinstance(one, Run):
            continue
        text = _text(one)
        verbs = {match[1]: match for match in _APT.finditer(text)}
        mounted = any(mount.target.startswith(_LISTS) for mount in one.mounts)
        install = verbs.get("install")
        if "update" in verbs and not verbs.keys() - {"update"}:
            message = "apt-get update alone: its lists are cached, and a later install takes old ones"
            yield warned("AptUpdateAlone", message, one, "Write apt-get update && apt-get install in one RUN")
        if install is None:
            continue
        if "update" not in verbs and not mounted and not _REPAIR.search(install[0]):
            message = "apt-get install without apt-get update in the same RUN takes whatever lists are cached"
            yield warned("AptInstallWithoutUpdate", message, one, "Write apt-get update && apt-get install …")
        if not _YES.search(install[0]) and "DEBIAN_FRONTEND" not in text and "yes" not in text:
            message = "apt-get install asks, and nobody answers"
            yield warned("AptAsks", message, one, "Write apt-get install -y")
        if "update" in verbs and not mounted and _LISTS not in text:
            message = "the lists of apt-get stay in the layer"
            yield warned("AptListsKept", message, one, "Add && rm -rf /var/lib/apt/lists/*")


def _runs(stage: Stage) -> Iterator[Warned]:
    row: list[Run] = []
    for one in (*stage.instructions, None):
        if isinstance(one, Run):
            text = _text(one).strip()
            if _SUDO.search(text):
                message = "sudo in a build: RUN is root already, unless USER says otherwise"
                yield warned("SudoInRun", message, one, "Leave it out, or set USER root before")
            if one.command.shell and not one.command.heredocs and (lost := _LOST.match(text)):
                hint = {"cd": "Use WORKDIR", "export": "Use ENV"}.get(
                    lost[1], "Join it to the RUN that needs it"
                )
                yield warned("EffectLost", f"{lost[1]} has no effect on the next instruction", one, hint)
            row.append(one)
            continue
        if len(row) >= MANY_RUNS:
            message = f"{len(row)} RUN in a row make {len(row)} layers"
            yield warned("ManyLayers", message, row[0], "Join them with && or a heredoc")
        row = []


def _copies(stage: Stage) -> Iterator[Warned]:
    whole: Copy | None = None
    for one in stage.instructions:
        if isinstance(one, Add) and not (one.checksum or one.unpack or one.keep_git_dir or one.heredocs):
            plain = [
                s for s in one.sources if not _REMOTE.match(s) and not _ARCHIVE.search(s) and "$" not in s
            ]
            if plain and len(plain) == len(one.sources):
                message = "ADD also fetches and unpacks; for files of the context COPY says what is meant"
                yield warned("PreferCopy", message, one, "Write COPY")
        if isinstance(one, Copy) and not one.origin and any(s in (".", "./", "/") for s in one.sources):
            whole = whole or one
        elif isinstance(one, Run) and whole is not None and _INSTALL.search(_text(one)):
            if not any(mount.kind == "bind" for mount in one.mounts):
                message = "any change of any file runs this installation again"
                yield warned(
                    "DependenciesAfterSources", message, one, "Copy what lists them first, then the rest"
                )
            return


def _user(last: Stage, stages: dict[str, Stage]) -> Iterator[Warned]:
    """Of the image that is made: who runs it, as far as this file says."""
    stage: Stage | None = last
    seen = 0
    while stage is not None and seen <= len(stages):
        users = [one for one in stage.instructions if isinstance(one, User)]
        if users:
            name = users[-1].user.partition(":")[0].strip("\"'")
            if name in ("root", "0"):
                yield warned(
                    "RootUser", "the container runs as root", users[-1], "Name another user at the end"
                )
            return
        stage = stages.get(stage.head.image.lower())
        seen += 1
    message = "no USER: the container runs as root, unless the base image says otherwise"
    yield warned("RootUser", message, last.head, "Write USER and a name or an id at the end")
