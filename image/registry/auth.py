"""How a registry asks who we are, and the answer: Bearer tokens and Basic.

Sources: distribution-spec, "auth/token"; RFC 9110 section 11 (challenges); RFC 6750. Invariant: a login goes
to the registry that it is for, or to the token service which that registry itself names over a connection at
least as safe; never to a host that a redirect leads to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from model.spec import Struct

MIN_LIFE = 60.0
"""Seconds that a token lives when its service does not say (the token specification's default)."""
MAX_LIFE = 3600.0
MAX_SCOPES = 8
_SCHEME = re.compile(r"\s*(?:,\s*)?([A-Za-z][A-Za-z0-9_-]*)\s+(?=[A-Za-z])")
_PARAMETER = re.compile(r'\s*(?:,\s*)?([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]*))')


class Challenge(Struct):
    """One way in that a 401 offers. `scheme` is lower case."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


class Token(Struct):
    value: str
    expires: float
    """On the caller's clock."""


class TokenReply(Struct):
    """What a token service answers; both names of the token are in use."""

    token: str = ""
    access_token: str = ""
    expires_in: float = MIN_LIFE
    refresh_token: str = ""

    @property
    def value(self) -> str:
        return self.token or self.access_token

    @property
    def life(self) -> float:
        """Seconds, less a margin for clocks and slow requests."""
        return max(min(self.expires_in, MAX_LIFE) - 10.0, 5.0)


def challenges(headers: Sequence[str]) -> list[Challenge]:
    """Every challenge of the WWW-Authenticate headers, in order; what can't be read is left out."""
    found = []
    for header in headers:
        position = 0
        header = header[:8192]
        while (scheme := _SCHEME.match(header, position)) is not None:
            position = scheme.end()
            values: dict[str, str] = {}
            while (pair := _PARAMETER.match(header, position)) is not None:
                quoted, plain = pair[2], pair[3]
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                values.setdefault(pair[1].lower(), value)
                position = pair.end()
            found.append(
                Challenge(
                    scheme=scheme[1].lower(),
                    realm=values.get("realm", ""),
                    service=values.get("service", ""),
                    scope=values.get("scope", ""),
                )
            )
    return found


def preferred(offered: Sequence[Challenge]) -> Challenge | None:
    """Bearer before Basic: a token says what it is for and dies soon."""
    by_scheme = {challenge.scheme: challenge for challenge in reversed(offered)}
    return by_scheme.get("bearer") or by_scheme.get("basic")


def scope_of(path: str, *actions: str) -> str:
    """The token specification's words for acts on a repository."""
    return f"repository:{path}:{','.join(actions)}"


def scopes(challenged: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """All that a token is asked for: what the registry named for this request, and what the transfer will
    need, so that one token serves all of it."""
    return tuple(dict.fromkeys((*challenged.split(), *wanted)))[:MAX_SCOPES]
