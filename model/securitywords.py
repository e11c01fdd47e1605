"""`--security-opt` and Docker's SecurityOpt: entries like `seccomp=unconfined`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from model.errors import InvalidInput
from model.quantity import parse_bool

PROFILES = ("docker", "default", "strict")
USUAL = (("label", "disable"), ("apparmor", "unconfined"), ("seccomp", "builtin"))
"""What Docker's clients ask for that is so here in any case."""


def security_options(entries: Iterable[str], field: str, *, usual: bool = False) -> dict[str, Any]:
    """Fields of a ContainerSpec. `field` is what messages call them; `usual`: take those of USUAL too. Raises
    InvalidInput."""
    made: dict[str, Any] = {}
    for entry in entries:
        key, equals, value = entry.replace(":", "=", 1).partition("=")
        if key == "seccomp" and value == "unconfined":
            made["seccomp"] = "unconfined"
        elif key == "no-new-privileges":
            made["no_new_privileges"] = not equals or parse_bool(value, key)
        elif key == "profile" and value in PROFILES:
            made["security_profile"] = value
        elif not usual or (key, value) not in USUAL:
            raise InvalidInput(
                f"{field}: {entry[:60]!r} is not supported",
                hint=f"Known: seccomp=unconfined, no-new-privileges[=BOOL], profile={'|'.join(PROFILES)}",
            )
    return made
