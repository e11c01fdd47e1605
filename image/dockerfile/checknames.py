"""Docker's rules about keywords and names: their case, their number, old forms. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from image.dockerfile.faults import printable
from image.dockerfile.instruction import (
    Arg,
    Cmd,
    Dockerfile,
    Entrypoint,
    Env,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Shell,
    Stage,
    Warned,
)

_SECRET = re.compile(
    r"(?:_|\A)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|\Z)", re.IGNORECASE
)
_HARMLESS = re.compile(r"(?:_|\A)(?:public|file|version)(?:_|\Z)", re.IGNORECASE)
_RESERVED = ("context", "scratch")


def names(dockerfile: Dockerfile) -> Iterator[Warned]:
    yield from _casing(dockerfile)
    taken: set[str] = set()
    for arg in dockerfile.args:
        yield from _secrets(arg)
        yield from _described(arg, [one.key for one in arg.args])
    for stage in dockerfile.stages:
        yield from _stage_name(stage.head, taken)
        yield from _described(stage.head, [stage.head.name] if stage.head.name else [])
        yield from _once(stage)
        shell = False
        for one in stage.instructions:
            shell = shell or isinstance(one, Shell)
            yield from _secrets(one)
            yield from _old(one)
            if isinstance(one, Arg):
                yield from _described(one, [arg.key for arg in one.args])
            if isinstance(one, Cmd | Entrypoint) and one.command.shell and not shell:
                name = keyword(one).upper()
                yield warned(
                    "JSONArgsRecommended",
                    f"{name} in shell form runs under a shell, which passes no signals on",
                    one,
                    f'Write {name} ["program", "argument"]',
                )


def keyword(one: Instruction) -> str:
    """As it is written."""
    return one.source.split(None, 1)[0] if one.source.split() else ""


def warned(code: str, message: str, one: Instruction, hint: str = "") -> Warned:
    return Warned(code=code, message=printable(message), spot=one.spot, hint=printable(hint))


def _casing(dockerfile: Dockerfile) -> Iterator[Warned]:
    all_of = [one for stage in dockerfile.stages for one in (stage.head, *stage.instructions)]
    count = Counter(
        "lower" if word == word.lower() else "upper"
        for word in map(keyword, all_of)
        if word in (word.lower(), word.upper())
    )
    lower = count["lower"] > count["upper"]
    for one in all_of:
        word = keyword(one)
        wanted = word.lower() if lower else word.upper()
        if word != wanted:
            message = f"{word} is written in another case than most keywords here"
            yield warned("ConsistentInstructionCasing", message, one, f"Write {wanted}")


def _stage_name(head: From, taken: set[str]) -> Iterator[Warned]:
    if not head.name:
        return
    *_, joint, name = head.source.split()
    if name != name.lower():
        yield warned(
            "StageNameCasing", f"the stage {name} is not in lower case", head, f"Write {name.lower()}"
        )
    word = keyword(head)
    if word in (word.lower(), word.upper()):
        wanted = joint.lower() if word == word.lower() else joint.upper()
        if joint != wanted:
            yield warned(
                "FromAsCasing", f"{joint} is written in another case than {word}", head, f"Write {wanted}"
            )
    if head.name in _RESERVED:
        yield warned("ReservedStageName", f"{head.name} is a reserved word", head, "Name the stage otherwise")
    if head.name in taken:
        message = f"another stage is called {head.name} too; a reference means the last"
        yield warned("DuplicateStageName", message, head, "Name one of them otherwise")
    taken.add(head.name)


def _once(stage: Stage) -> Iterator[Warned]:
    for kind in (Cmd, Entrypoint, Healthcheck):
        for one in [one for one in stage.instructions if isinstance(one, kind)][:-1]:
            message = f"a later {keyword(one)} of this stage replaces this one"
            yield warned("MultipleInstructionsDisallowed", message, one, "Delete it")


def _secrets(one: Instruction) -> Iterator[Warned]:
    keys: list[str] = []
    if isinstance(one, Arg):
        keys = [arg.key for arg in one.args]
    elif isinstance(one, Env):
        keys = [pair.key for pair in one.pairs]
    for key in keys:
        if _SECRET.search(key) and not _HARMLESS.search(key):
            yield warned(
                "SecretsUsedInArgOrEnv",
                f"{key[:60]} looks like a secret, and whoever has the image can read it",
                one,
                "Use RUN --mount=type=secret",
            )


def _old(one: Instruction) -> Iterator[Warned]:
    if isinstance(one, Env | Label) and one.old_form:
        word, pair = keyword(one), one.pairs[0]
        value = pair.value if " " not in pair.value else f'"{pair.value}"'
        yield warned(
            "LegacyKeyValueFormat",
            f"the old form of {word}, without =",
            one,
            f"Write {word} {pair.key[:60]}={value[:60]}",
        )
    if isinstance(one, Maintainer):
        yield warned(
            "MaintainerDeprecated",
            "MAINTAINER is deprecated",
            one,
            f'Write LABEL org.opencontainers.image.authors="{one.name[:60]}"',
        )


def _described(one: Instruction, keys: list[str]) -> Iterator[Warned]:
    """A comment right before an ARG or a named stage is taken for its description."""
    if keys and one.comments and one.comments[-1].split(" ", 1)[0] not in keys:
        message = f"the comment before {keyword(one)} does not begin with {keys[0][:60]}"
        hint = "Begin it with the name that it describes, or put an empty line behind it"
        yield warned("InvalidDefinitionDescription", message, one, hint)
