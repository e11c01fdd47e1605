"""Rules of health checks that types alone can't express, each with its path. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from model.errors import Problem
from model.spec import ExecProbe, HealthCheck, HttpProbe, Probe, ShellProbe, TcpProbe

_SHORTEST = 0.001
"""Seconds; as in Docker."""
_LONGEST = 30 * 86400.0
_MAX_COMMAND = 1 << 17
_PATH = re.compile(r"/[!-~]{0,2047}\Z")
_TIMES = ("interval", "timeout", "start_period", "start_interval")


def health_problems(check: HealthCheck, at: str) -> Iterator[Problem]:
    """Everything wrong with a health check."""
    if check.disabled and check != HealthCheck(disabled=True):
        yield Problem(path=at, message="is disabled, so it takes no command and no times")
    if check.probe is not None:
        yield from _probe(check.probe, f"{at}.probe")
    for field in _TIMES:
        seconds = getattr(check, field)
        if seconds and not _SHORTEST <= seconds <= _LONGEST:
            message = f"must be {_SHORTEST:g} s to {_LONGEST:g} s, or 0 for what the image says"
            yield Problem(path=f"{at}.{field}", message=message)
    if not 0 <= check.retries <= 1_000_000:
        yield Problem(path=f"{at}.retries", message="must be 0 to 1000000")


def _probe(probe: Probe, at: str) -> Iterator[Problem]:
    words: tuple[str, ...] = ()
    match probe:
        case ExecProbe(args=args):
            words = args
            if not args or not args[0]:
                yield Problem(path=f"{at}.args", message="names no program")
        case ShellProbe(command=command):
            words = (command,)
            if not command.strip():
                yield Problem(path=f"{at}.command", message="is empty")
        case TcpProbe(port=port) | HttpProbe(port=port):
            if not 1 <= port <= 65535:
                yield Problem(path=f"{at}.port", message=f"{port} is not a port (1 to 65535)")
    if any("\0" in word for word in words):
        yield Problem(path=at, message="contains a NUL character")
    if sum(map(len, words)) > _MAX_COMMAND:
        yield Problem(path=at, message=f"is longer than {_MAX_COMMAND} characters")
    if isinstance(probe, HttpProbe) and not _PATH.match(probe.path):
        hint = "write for example 8080/health, with spaces as %20"
        yield Problem(path=f"{at}.path", message=f"{probe.path[:80]!r} is no path: {hint}")
