"""A service's policies: `--update-*` and `--rollback-*`, `--restart-*`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from model.errors import InvalidInput
from model.quantity import parse_duration
from model.spec import RestartPolicy, UpdatePolicy

RESTARTS: Mapping[str, Any] = {"none": "no", "on-failure": "on-failure", "any": "always"}
"""Docker's words for a service's containers, and ours."""


def update_policy(flags: Mapping[str, Any], kind: str, before: UpdatePolicy) -> UpdatePolicy:
    """What the flags of `kind` (update, rollback) make of `before`, which they leave alone where they say
    nothing. Raises InvalidInput."""
    given = {name: flags.get(f"{kind}_{name}") for name in UpdatePolicy.__struct_fields__}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name in ("delay", "monitor"):
        if name in changes:
            changes[name] = parse_duration(changes[name])
    if "max_failure_ratio" in changes:
        changes["max_failure_ratio"] = _ratio(kind, changes["max_failure_ratio"])
    return replace(before, **changes)


def restart_policy(flags: Mapping[str, Any], before: RestartPolicy) -> RestartPolicy:
    """What `--restart-*` make of `before`. Raises InvalidInput."""
    changes: dict[str, Any] = {}
    if flags["restart_condition"]:
        changes["condition"] = RESTARTS[flags["restart_condition"]]
    if flags["restart_max_attempts"] is not None:
        changes["max_attempts"] = flags["restart_max_attempts"]
    for name in ("delay", "window"):
        if flags[f"restart_{name}"]:
            changes[name] = parse_duration(flags[f"restart_{name}"])
    return replace(before, **changes)


def _ratio(kind: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(
            f"--{kind}-max-failure-ratio {text[:20]!r}", hint="Write a number from 0 to 1"
        ) from None
