"""`Healthcheck` of an image configuration (Docker image spec v1.2), its times in nanoseconds. Pure.

It is a stranger's word: whatever is no health check raises Damaged.
"""

from __future__ import annotations

from typing import Any

from model.errors import Damaged
from model.spec import ExecProbe, HealthCheck, Probe, ShellProbe

_NANO = 1_000_000_000
_MOST = 1 << 62
_TIMES = {
    "Interval": "interval",
    "Timeout": "timeout",
    "StartPeriod": "start_period",
    "StartInterval": "start_interval",
}
_MAX_WORDS, _MAX_TEXT = 1024, 1 << 16


def parse(raw: Any) -> HealthCheck | None:
    """None if there is none. `Test`: [] inherits, ["NONE"], ["CMD", …], ["CMD-SHELL", command]."""
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise Damaged("config.Healthcheck is no object")
    test = raw.get("Test") or []
    if not isinstance(test, list) or len(test) > _MAX_WORDS or not all(_is_word(word) for word in test):
        raise Damaged("config.Healthcheck.Test is no list of words")
    times: dict[str, Any] = {ours: _number(raw, key, _MOST) / _NANO for key, ours in _TIMES.items()}
    retries = _number(raw, "Retries", 1 << 31)
    if test == ["NONE"]:
        return HealthCheck(disabled=True)
    return HealthCheck(probe=_probe(test), retries=retries, **times)


def encoded(check: HealthCheck) -> dict[str, Any]:
    """What `parse` reads. An image can't name probes that Docker does not know; none of ours has one."""
    made: dict[str, Any] = {}
    match check.probe:
        case ExecProbe(args=args):
            made["Test"] = ["CMD", *args]
        case ShellProbe(command=command):
            made["Test"] = ["CMD-SHELL", command]
    if check.disabled:
        made["Test"] = ["NONE"]
    made |= {theirs: round(getattr(check, ours) * _NANO) for theirs, ours in _TIMES.items()}
    made["Retries"] = check.retries
    return {key: value for key, value in made.items() if value}


def _is_word(word: Any) -> bool:
    return isinstance(word, str) and "\0" not in word and len(word) <= _MAX_TEXT


def _probe(test: list[str]) -> Probe | None:
    if not test:
        return None
    kind, words = test[0], test[1:]
    if kind == "CMD" and words:
        return ExecProbe(args=tuple(words))
    if kind == "CMD-SHELL" and len(words) == 1:
        return ShellProbe(command=words[0])
    raise Damaged(f"config.Healthcheck.Test: {str(test)[:80]} is neither NONE, CMD nor CMD-SHELL")


def _number(raw: dict[str, Any], key: str, most: int) -> int:
    value = raw.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise Damaged(f"config.Healthcheck.{key}: {str(value)[:40]} is no count")
    return value
