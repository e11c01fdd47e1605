"""Daemons of others, as tests start them: none outlives its test, and one that dies says why."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.support.waiting import wait_until


@contextlib.contextmanager
def daemon(
    argv: Sequence[str], log: Path, answers: Callable[[], bool], *, start: float, end: float = 30.0
) -> Iterator[subprocess.Popen[bytes]]:
    """`start`, `end`: seconds until it answers, and from SIGTERM to its end; then it is killed. Raises
    AssertionError with the last of its log where it ends before it answers, or answers too late."""
    with open(log, "wb") as file:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def there() -> bool:
        assert process.poll() is None, f"{argv[0]} ended with {process.returncode}"
        return answers()

    try:
        try:
            wait_until(there, deadline=start, what=f"{argv[0]} answers")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{_last(log)}") from None
        yield process
    finally:
        process.terminate()
        try:
            process.wait(end)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(end)


def _last(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
