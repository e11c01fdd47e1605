"""Progress of pulls and loads: bars on a terminal, lines elsewhere; several hosts at once."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from cli.render import clean
from model.errors import BY_CODE, FlotaError, Internal


class Display:
    """`result`: print what was made."""

    def __init__(self, *, quiet: bool, result: bool = True) -> None:
        self._quiet = quiet
        self._result = result
        self._failures: list[tuple[str, Mapping[str, Any]]] = []
        self._images: list[str] = []
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def run(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Show all; print what was made, once. Raises the failure of the only or the last host that
        failed."""
        with self._context():
            for line in lines:
                self._take(line)
        for image in dict.fromkeys(self._images) if self._result else ():
            sys.stdout.write(f"{clean(image)}\n")
        self._raise()

    def _context(self) -> Any:
        from contextlib import nullcontext

        if self._quiet or not sys.stderr.isatty():
            return nullcontext()
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=Console(stderr=True)
        )
        return self._bars

    def _take(self, line: Mapping[str, Any]) -> None:
        host = line.get("host", "")
        if line.get("error"):
            self._failures.append((host, line))
        elif line.get("image"):
            self._images.append(line["image"])
        elif self._bars is not None and not line.get("id") and line.get("status"):
            self._bars.print(clean(line["status"]), markup=False, highlight=False)
        elif self._bars is not None and line.get("id"):
            self._advance(f"{host} {line['id']}", line)
        elif not self._quiet and self._bars is None and line.get("status"):
            sys.stderr.write(clean(f"{host}: {line.get('id', '')} {line['status']}\n"))

    def _advance(self, key: str, line: Mapping[str, Any]) -> None:
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(clean(key), total=None)
        text = clean(f"{key}: {line.get('status', '')}")
        self._bars.update(
            self._tasks[key],
            description=text,
            completed=line.get("current", 0),
            total=line.get("total") or None,
        )

    def _raise(self) -> None:
        if not self._failures:
            return
        for host, line in self._failures[:-1]:
            sys.stderr.write(clean(f"flota: {host}: {line['error']}\n"))
        host, line = self._failures[-1]
        cls: type[FlotaError] = BY_CODE.get(line.get("error_code", ""), Internal)
        raise cls(f"{host}: {line['error']}" if host else line["error"])
