"""Versions of the Docker Engine API: which are served, and how a path names one. Pure.

A path without a version is of the newest; clients of before and after are told so in Docker's words.
"""

from __future__ import annotations

import re

from api.docker.errors import Refusal

Version = tuple[int, int]
OLDEST: Version = (1, 24)
NEWEST: Version = (1, 51)
TOLERATED: Version = (1, 12)
"""The oldest that is answered, in the way of `OLDEST`: skopeo asks for 1.22, whatever is served."""
_PREFIX = re.compile(r"/v(\d{1,3})\.(\d{1,3})(/.*)\Z", re.DOTALL)


def text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def split(path: str) -> tuple[Version, str]:
    """`/v1.41/info` → (1, 41) and `/info`; an older one than `OLDEST` becomes it. Raises Refusal for others
    that are not served."""
    match = _PREFIX.match(path)
    if match is None:
        return NEWEST, path
    version = int(match[1]), int(match[2])
    if version < TOLERATED:
        raise Refusal(
            400,
            f"client version {text(version)} is too old. Minimum supported API version is {text(OLDEST)}, "
            "please upgrade your client to a newer version",
        )
    if version > NEWEST:
        raise Refusal(
            400,
            f"client version {text(version)} is too new. Maximum supported API version is {text(NEWEST)}",
        )
    return max(version, OLDEST), match[3]
