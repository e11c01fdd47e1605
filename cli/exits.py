"""Exit codes: docker's where the verb is docker's (125 ours, 126 and 127 the container's, 128 + n), else 1
and 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ENGINE = 125
"""`run`, `create`, `exec`: flota itself failed, not what it was to run."""
FAILED = 1
USAGE = 2
INTERRUPTED = 130
DOCKERS = frozenset({"run", "create", "exec"})


def of_error(command: Sequence[str]) -> int:
    """For an error of ours in this command line."""
    return ENGINE if _verb(command) in DOCKERS else FAILED


def of_usage(command: Sequence[str]) -> int:
    return ENGINE if _verb(command) in DOCKERS else USAGE


def of_status(status: Mapping[str, object]) -> int:
    """A container's: its process's, 125 when that is not known."""
    code = status.get("exit_code")
    return code if isinstance(code, int) else ENGINE


def _verb(command: Sequence[str]) -> str:
    words = [word for word in command if not word.startswith("-")]
    if words[:1] == ["container"]:
        words = words[1:]
    return words[0] if words else ""
