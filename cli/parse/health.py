"""`--health-*` and `--no-healthcheck` to a HealthCheck. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from model.errors import InvalidInput
from model.quantity import parse_duration
from model.spec import HealthCheck, HttpProbe, Probe, ShellProbe, TcpProbe

_TIMES = ("interval", "timeout", "start_period", "start_interval")


def health_check(flags: Mapping[str, Any], before: HealthCheck | None) -> HealthCheck | None:
    """What the flags make of `before`, which they leave alone where they say nothing. An empty command takes
    the probe away, as with docker: the image's stands then. Raises InvalidInput."""
    changes = _changes(flags)
    if flags.get("no_healthcheck"):
        if changes:
            raise InvalidInput("--no-healthcheck conflicts with the --health-… options")
        return HealthCheck(disabled=True)
    if not changes:
        return before
    return replace(before or HealthCheck(), disabled=False, **changes)


def _changes(flags: Mapping[str, Any]) -> dict[str, Any]:
    given = [kind for kind in ("cmd", "tcp", "http") if flags.get(f"health_{kind}") is not None]
    if len(given) > 1:
        raise InvalidInput(f"--health-{given[0]} conflicts with --health-{given[1]}: there is one check")
    changes: dict[str, Any] = {}
    if given:
        changes["probe"] = _probe(given[0], flags[f"health_{given[0]}"])
    for name in _TIMES:
        if flags.get(f"health_{name}") is not None:
            changes[name] = parse_duration(flags[f"health_{name}"])
    if flags.get("health_retries") is not None:
        changes["retries"] = flags["health_retries"]
    return changes


def _probe(kind: str, text: str) -> Probe | None:
    if not text.strip():
        return None
    if kind == "cmd":
        return ShellProbe(command=text)
    port, slash, path = text.partition("/")
    if not port.isascii() or not port.isdecimal() or len(port) > 5 or (kind == "tcp" and slash):
        hint = "Write a port, for example 5432" if kind == "tcp" else "Write for example 8080/health"
        raise InvalidInput(f"--health-{kind} {text[:60]!r}", hint=hint)
    return TcpProbe(port=int(port)) if kind == "tcp" else HttpProbe(port=int(port), path=f"/{path}")
