"""Exit codes: docker's where the verb is docker's (125 ours, 126 and 127 the container's, 128 + n), else 1
and 2."""

from __future__ import annotations

from collections.abc import Sequence

from model.errors import CommandFailed, FlotaError
from model.status import start_failure_code

ENGINE = 125
"""`run`, `create`, `exec`: flota itself failed, not what it was to run."""
FAILED = 1
USAGE = 2
INTERRUPTED = 130
DOCKERS = frozenset({"run", "create", "exec"})


def of_error(command: Sequence[str], error: FlotaError) -> int:
    """For an error of ours in this command line; a program that can't be run has docker's code for it."""
    if verb(command) not in DOCKERS:
        return FAILED
    return start_failure_code(error.message) if isinstance(error, CommandFailed) else ENGINE


def of_usage(command: Sequence[str]) -> int:
    return ENGINE if verb(command) in DOCKERS else USAGE


def verb(command: Sequence[str]) -> str:
    words = list(command)
    while words and words[0].startswith("-"):
        takes_value = words[0] in ("-H", "--host", "--credentials")
        words = words[2 if takes_value else 1 :]
    if words[:1] == ["container"]:
        words = words[1:]
    return words[0] if words else ""
