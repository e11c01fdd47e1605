"""A running QEMU's monitor: one request by a connection of its own, each with a deadline.

Source: QEMU's docs/interop/qmp-spec.txt.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any


class MonitorError(RuntimeError):
    """What the monitor refused, in its words."""


def command(path: Path, execute: str, *, timeout: float = 60.0, **arguments: Any) -> Any:
    """What a monitor's command returns. Raises MonitorError when it is refused, OSError when nobody answers
    in time."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        with connection.makefile("rw", encoding="utf-8") as stream:
            if "QMP" not in _message(stream):
                raise MonitorError(f"{path} is no monitor of QEMU")
            _ask(stream, {"execute": "qmp_capabilities"})
            return _ask(stream, {"execute": execute, "arguments": arguments})


def human(path: Path, line: str, *, timeout: float = 60.0) -> None:
    """A command that the monitor has for people alone, such as savevm. It prints nothing when it has done
    what it was told; raises MonitorError with what it prints otherwise."""
    said = command(path, "human-monitor-command", timeout=timeout, **{"command-line": line})
    if said.strip():
        raise MonitorError(f"{line}: {said.strip()}")


def _ask(stream: Any, request: dict[str, Any]) -> Any:
    stream.write(json.dumps(request) + "\n")
    stream.flush()
    while True:
        answer = _message(stream)
        if "error" in answer:
            raise MonitorError(f"{request['execute']}: {answer['error'].get('desc', answer['error'])}")
        if "return" in answer:
            return answer["return"]


def _message(stream: Any) -> dict[str, Any]:
    line = stream.readline()
    if not line:
        raise MonitorError("QEMU closed its monitor")
    found: dict[str, Any] = json.loads(line)
    return found
