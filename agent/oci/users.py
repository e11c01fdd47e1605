"""`--user` and `USER` to uid, gid, groups and home, by the image's own passwd and group. Pure.

The files are written by strangers: reads are bounded by the caller, lines here; a number out of range is
refused, never wrapped to 0 (CVE-2024-40635), and an all-digit user is a number, never a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from model.errors import InvalidInput
from model.spec import Struct

MAX_ID = (1 << 31) - 1
MAX_LINE = 4096
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@-]{0,255}\$?\Z")


class User(Struct):
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    """Supplementary; the primary one is among them, so that it can't be shed (CVE-2022-36109)."""
    home: str = "/"


class _Entry(Struct):
    name: str
    uid: int
    gid: int
    home: str


def resolve(text: str, extra_groups: tuple[str, ...], *, passwd: bytes, group: bytes) -> User:
    """`name|uid[:group|gid]` → User. Empty means root. Raises InvalidInput for an unknown name, a number
    out of range, or text that is neither."""
    user, colon, group_text = text.partition(":")
    if colon and not group_text:
        raise InvalidInput(f"invalid user {text[:80]!r}: the group is missing")
    entry = _find_user(user or "0", passwd)
    gid = _find_group(group_text, group) if group_text else entry.gid
    groups = {gid}
    if not group_text and entry.name:
        groups |= {number for _, number, members in _groups(group) if entry.name in members}
    groups |= {_find_group(name, group) for name in extra_groups}
    return User(uid=entry.uid, gid=gid, groups=tuple(sorted(groups)), home=entry.home)


def home_of(uid: int, passwd: bytes) -> str:
    """Home of the first entry with that uid; `/` if there is none."""
    return next((entry.home for entry in _users(passwd) if entry.uid == uid), "/")


def _find_user(text: str, passwd: bytes) -> _Entry:
    if text.isdecimal() and text.isascii():
        uid = _number("user", text)
        found = next((entry for entry in _users(passwd) if entry.uid == uid), None)
        return found or _Entry(name="", uid=uid, gid=0, home="/")
    if not _NAME.match(text):
        raise InvalidInput(f"invalid user name {text[:80]!r}")
    for entry in _users(passwd):
        if entry.name == text:
            return entry
    if text == "root":
        return _Entry(name="root", uid=0, gid=0, home="/root")
    raise InvalidInput(
        f"unable to find user {text}: no such user in the image's /etc/passwd", hint="Use its number"
    )


def _find_group(text: str, group: bytes) -> int:
    if text.isdecimal() and text.isascii():
        return _number("group", text)
    if not _NAME.match(text):
        raise InvalidInput(f"invalid group name {text[:80]!r}")
    for name, gid, _ in _groups(group):
        if name == text:
            return gid
    if text == "root":
        return 0
    raise InvalidInput(
        f"unable to find group {text}: no such group in the image's /etc/group", hint="Use its number"
    )


def _number(what: str, text: str) -> int:
    if len(text) > 10 or int(text) > MAX_ID:
        raise InvalidInput(f"{what} id {text[:40]} is out of range: 0 to {MAX_ID}")
    return int(text)


def _lines(data: bytes, fields: int) -> Iterator[list[str]]:
    for line in data.split(b"\n"):
        if len(line) <= MAX_LINE and b"\0" not in line:
            parts = line.decode("utf-8", "replace").split(":")
            if len(parts) >= fields:
                yield parts


def _users(passwd: bytes) -> Iterator[_Entry]:
    for name, _, uid, gid, _, home, *_ in _lines(passwd, 6):
        if _in_range(uid) and _in_range(gid):
            yield _Entry(name=name, uid=int(uid), gid=int(gid), home=home if _sane(home) else "/")


def _groups(group: bytes) -> Iterator[tuple[str, int, frozenset[str]]]:
    for name, _, gid, members, *_ in _lines(group, 4):
        if _in_range(gid):
            yield name, int(gid), frozenset(m.strip() for m in members.split(","))


def _in_range(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) <= 10 and int(text) <= MAX_ID


def _sane(home: str) -> bool:
    return home.startswith("/") and home.isprintable()
