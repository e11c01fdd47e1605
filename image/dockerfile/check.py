"""`flota build --check`: what a Dockerfile that builds had better do otherwise. Pure.

Rules with Docker's names find what its checks find (their reference is the source); `habits` adds what the
guides of the field ask for. `# check=skip=A,B;error=true` at the top, and `# check=skip=A` right
before an instruction, are honoured as Docker does.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable

from image.dockerfile import checknames, checkwords, habits
from image.dockerfile.faults import printable
from image.dockerfile.instruction import Dockerfile, Spot, Warned
from model.spec import Struct

EXPERIMENTAL = ("InvalidDefinitionDescription",)
"""Judged only if `experimental=` names them, as Docker has it."""
MAX_FINDINGS = 1000


class Options(Struct):
    """Of one `check=`. `skip` and `experimental` hold names; "all" means every rule."""

    skip: tuple[str, ...] = ()
    experimental: tuple[str, ...] = ()
    error: bool = False
    wrong: str = ""
    """The part that is no option."""


def check(
    dockerfile: Dockerfile, *, with_habits: bool = True, ignored: Callable[[str], bool] | None = None
) -> tuple[Warned, ...]:
    """Findings by place, those of the parser among them. `ignored`: whether the ignore file leaves a path of
    the context out; None: not known here."""
    options = parse_options(dockerfile.check)
    found = list(dockerfile.warnings)
    if options.wrong:
        message = printable(f"check: {options.wrong[:60]!r} is no option")
        hint = "Write # check=skip=Rule,Rule;error=true"
        found.append(Warned(code="CheckOptionInvalid", message=message, spot=Spot(line=1), hint=hint))
    found += checknames.names(dockerfile)
    found += checkwords.words(dockerfile, ignored)
    if with_habits:
        found += habits.habits(dockerfile)
    local = _local(dockerfile)
    kept = {warned: None for warned in found if _wanted(warned, options, local)}
    ordered = sorted(kept, key=lambda warned: (warned.spot.line, warned.spot.column, warned.code))
    return tuple(ordered[:MAX_FINDINGS])


def as_errors(dockerfile: Dockerfile) -> bool:
    """Whether the file itself asks that findings fail the build."""
    return parse_options(dockerfile.check).error


def parse_options(text: str) -> Options:
    """Of `skip=A,B;error=true;experimental=all`."""
    found: dict[str, tuple[str, ...]] = {"skip": (), "experimental": ()}
    error, wrong = False, ""
    for part in text.split(";") if text.strip() else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key in found and equals:
            found[key] = tuple(name.strip() for name in value.split(",") if name.strip())
        elif key == "error" and value.lower() in ("true", "false", "1", "0", "t", "f"):
            error = value.lower() in ("true", "1", "t")
        else:
            wrong = wrong or part.strip() or text
    return Options(skip=found["skip"], experimental=found["experimental"], error=error, wrong=wrong)


def _local(dockerfile: Dockerfile) -> list[tuple[int, int, Options]]:
    """(first line, last line, options) of instructions that have some of their own, by line."""
    found: list[tuple[int, int, Options]] = []
    for stage in dockerfile.stages:
        for one in (stage.head, *stage.instructions):
            for comment in one.comments:
                name, _, value = comment.partition("=")
                if name.strip().lower() == "check":
                    found.append(
                        (one.spot.line, one.last_line, parse_options(value.strip().partition(" ")[0]))
                    )
    return found


def _wanted(warned: Warned, options: Options, local: list[tuple[int, int, Options]]) -> bool:
    asked = [options]
    index = bisect.bisect_right(local, warned.spot.line, key=lambda own: own[0])
    while index and local[index - 1][1] >= warned.spot.line:
        index -= 1
        asked.append(local[index][2])
    if warned.code in EXPERIMENTAL:
        return any("all" in own.experimental or warned.code in own.experimental for own in asked)
    return not any("all" in own.skip or warned.code in own.skip for own in asked)
