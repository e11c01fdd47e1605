"""Files of a host's service supervisor, below a root that is `/` but in tests. Blocking."""

from __future__ import annotations

from pathlib import Path

from aio.durable import write_file


class UnitFiles:
    """`mode` is that of each file: what runs it as a script wants it executable."""

    def __init__(self, top: str, mode: int) -> None:
        self._top, self._mode = top, mode

    def path(self, path: str) -> Path:
        return Path(self._top, path.lstrip("/"))

    def text(self, path: str) -> str | None:
        """None if there is no such file. Raises OSError."""
        try:
            return self.path(path).read_text()
        except FileNotFoundError:
            return None

    def put(self, path: str, text: str) -> None:
        """Whole and durable. Raises OSError."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, text.encode(), self._mode)
