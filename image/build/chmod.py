"""`--chmod` of COPY and ADD: octal, or symbolic as chmod(1) has it, without a umask. Pure.

Invariant: what was accepted can be applied to any mode, and never makes one above 07777.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from model.errors import InvalidInput

ModeChange = Callable[[int, bool], int]
"""(mode, whether it is a directory) → mode."""
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*|[-+=][ugo]+)+)\Z")
_ACTION = re.compile(r"([-+=])([rwxXst]*|[ugo]+)(?=[-+=]|\Z)")
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o0007}
_SHIFTS = {"u": 6, "g": 3, "o": 0}
MAX_LENGTH = 200


def octal(text: str) -> int | None:
    """None for a symbolic mode. Raises InvalidInput for what only looks like an octal one."""
    if not text[:1].isdigit():
        return None
    if not re.fullmatch(r"[0-7]{1,11}", text, re.ASCII) or int(text, 8) > 0o7777:
        raise _refused(text)
    return int(text, 8)


def parse(text: str) -> ModeChange:
    """Raises InvalidInput."""
    number = octal(text)
    if number is not None:
        return lambda mode, folder: number
    if len(text) > MAX_LENGTH:
        raise _refused(text)
    clauses = []
    for clause in text.split(","):
        match = _CLAUSE.match(clause)
        if match is None:
            raise _refused(text)
        clauses.append((match[1], _ACTION.findall(match[2])))

    def change(mode: int, folder: bool) -> int:
        first = mode
        for who, actions in clauses:
            for operator, wanted in actions:
                mode = _applied(mode, who, operator, wanted, run=folder or bool(first & 0o111))
        return mode

    return change


def _applied(mode: int, who: str, operator: str, wanted: str, *, run: bool) -> int:
    """`run`: `X` means `x`."""
    whom = 0
    for letter in who.replace("a", "ugo") or "ugo":
        whom |= _WHO[letter]
    bits = 0
    for letter in wanted:
        if letter in _SHIFTS:
            part = mode >> _SHIFTS[letter] & 7
            bits |= part << 6 | part << 3 | part
        elif letter == "s":
            bits |= 0o6000
        elif letter == "t":
            bits |= 0o1000
            whom |= 0o1000 if not who or set(who) - {"o"} else 0
        elif letter != "X" or run:
            bits |= _BITS["x" if letter == "X" else letter]
    bits &= whom
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    return mode & ~whom | bits


def _refused(text: str) -> InvalidInput:
    return InvalidInput(
        f"--chmod={text[:MAX_LENGTH]!r} is no mode",
        hint="It is octal, from 0 to 7777, or symbolic as chmod(1) has it: u=rwX,go=rX",
    )
