"""`--chown` of COPY and ADD, and the owner of a WORKDIR: names by the root's own passwd and group. Pure.

As BuildKit: a user's number alone is the group's too; a user's name alone means the group that passwd says.
Invariant: nobody becomes root, or anyone else, by a number that is too large or a line that can't be read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from model.errors import InvalidInput, NotFound

MAX_ID = (1 << 32) - 2
"""2^32 - 1 means "leave it" to chown."""
MAX_FILE = 1 << 20
"""Bytes read of a passwd or group file."""
_MAX_LINE = 4096


class Owner(NamedTuple):
    uid: int
    gid: int


class Wish(NamedTuple):
    """A part of `a:b`: a number, or a name; None: it was left out."""

    user: int | str | None
    group: int | str | None

    @property
    def named(self) -> bool:
        """The root's files must be asked."""
        return isinstance(self.user, str) or isinstance(self.group, str)


def parse(text: str, flag: str = "--chown") -> Wish:
    """Raises InvalidInput."""
    user, colon, group = text.partition(":")
    if ":" in group:
        raise InvalidInput(f"{flag}={_shown(text)} has more than one colon", hint="It is user, or user:group")
    return Wish(_part(user, text, flag), _part(group, text, flag) if colon else None)


def _part(part: str, text: str, flag: str) -> int | str | None:
    if not part:
        return None
    if part == "root":
        return 0
    if part.isascii() and part.lstrip("+-").isdigit():
        number = int(part) if len(part) < 12 else MAX_ID + 1
        if not 0 <= number <= MAX_ID or not part.isdigit():
            raise InvalidInput(f"{flag}={_shown(text)}: {part[:40]} is no id", hint=f"Ids are 0 to {MAX_ID}")
        return number
    if any(ord(letter) < 33 or ord(letter) == 127 for letter in part) or len(part) > 256:
        raise InvalidInput(f"{flag}={_shown(text)} is no name of a user or group")
    return part


def owner(wish: Wish, read: Callable[[str], bytes], flag: str = "--chown") -> Owner:
    """`read` gives a file of the root, empty for one that is not there. Raises NotFound for a name that the
    root doesn't know, InvalidInput for a line that makes no sense."""
    uid = gid = 0
    if isinstance(wish.user, int):
        uid = gid = wish.user
    elif wish.user is not None:
        fields = _line(read("/etc/passwd"), wish.user, "/etc/passwd", "user", flag)
        uid, gid = _id(fields, 2, "/etc/passwd"), _id(fields, 3, "/etc/passwd")
    if isinstance(wish.group, int):
        gid = wish.group
    elif wish.group is not None:
        gid = _id(_line(read("/etc/group"), wish.group, "/etc/group", "group", flag), 2, "/etc/group")
    return Owner(uid, gid)


def _line(data: bytes, name: str, file: str, what: str, flag: str) -> list[bytes]:
    wanted = name.encode(errors="surrogateescape")
    for line in data.split(b"\n"):
        fields = line.strip().split(b":")
        if fields[0] == wanted and len(line) <= _MAX_LINE:
            return fields
    hint = "Make it by a RUN before, or give its number" if data else f"The stage has no {file}: use numbers"
    raise NotFound(f"{flag}: there is no {what} {name!r} in {file} of this stage", hint=hint)


def _id(fields: list[bytes], index: int, file: str) -> int:
    text = fields[index] if len(fields) > index else b""
    if text.isdigit() and len(text) < 12 and int(text) <= MAX_ID:
        return int(text)
    name = fields[0].decode(errors="replace")
    raise InvalidInput(f"{file} of this stage has no id for {name!r} that can be: {text[:40]!r}")


def _shown(text: str) -> str:
    return repr(text[:80])
