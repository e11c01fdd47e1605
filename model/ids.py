"""Typed ids and names, and their formats. Pure.

Every id is 64 lower-case hexadecimal digits (256 random bits): unique over the whole fleet without
asking anybody, and what Docker's clients expect of a container id. Users may write any unique prefix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NewType

from model.errors import Ambiguous, InvalidInput, NotFound

HostId = NewType("HostId", str)
ServiceId = NewType("ServiceId", str)
InstanceId = NewType("InstanceId", str)
NetworkId = NewType("NetworkId", str)
PolicyId = NewType("PolicyId", str)

IdSource = Callable[[], str]
"""Gives a new 64-digit id at each call. Real: `secrets.token_hex(32)`; in tests: counted."""

SHORT = 12
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}\Z")
SERVICE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\Z")
"""A label of names that are asked for, with `_` as clients of Docker's use it (`stack_service`)."""
_ID = re.compile(r"[0-9a-f]{64}\Z")
_PREFIX = re.compile(r"[0-9a-f]{1,64}\Z")


def short(ident: str) -> str:
    """The first 12 digits, as shown in tables."""
    return ident[:SHORT]


def is_id(text: str) -> bool:
    return _ID.match(text) is not None


def check_name(what: str, name: str) -> str:
    """Return `name`, or raise InvalidInput when it is no name for a `what` (container, network …)."""
    if not NAME.match(name):
        raise InvalidInput(
            f"invalid {what} name {name[:80]!r}",
            hint="Use letters, digits, '_', '.' and '-', starting with a letter or digit, 128 at most",
        )
    return name


def resolve(what: str, ref: str, candidates: Iterable[tuple[str, str]]) -> str:
    """The id that `ref` means among (id, name) candidates: full id, then exact name, then `web.1` for a
    service's `web.1.<id>` while there is but one, then unique id prefix.

    Raises NotFound or Ambiguous.
    """
    ref = ref.removeprefix("/")
    by_prefix: list[tuple[str, str]] = []
    by_name: list[str] = []
    by_slot: list[str] = []
    for ident, name in candidates:
        if ident == ref:
            return ident
        if name == ref:
            by_name.append(ident)
        if name == f"{ref}.{short(ident)}":
            by_slot.append(ident)
        if ident.startswith(ref) and _PREFIX.match(ref):
            by_prefix.append((ident, name))
    if len(by_name) == 1:
        return by_name[0]
    if len(by_name) > 1:
        raise Ambiguous(f"{len(by_name)} {what}s are named {ref!r}", hint="Use the id")
    if len(by_slot) == 1:
        return by_slot[0]
    if len(by_prefix) == 1:
        return by_prefix[0][0]
    if by_prefix:
        shown = ", ".join(f"{short(i)} ({n})" for i, n in sorted(by_prefix)[:4])
        raise Ambiguous(f"{ref!r} fits {len(by_prefix)} {what}s: {shown}", hint="Give more digits")
    raise NotFound(f"no such {what}: {ref[:128]}")
