"""What happens on many hosts at once: a table that moves on a terminal, lines elsewhere. On standard
error."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cli.render import clean

COLOURS = {
    "added": "green",
    "removed": "green",
    "already": "green",
    "failed": "red",
    "planned": "cyan",
    "working": "yellow",
}


class HostTable:
    """Call it with a host, its state, and what is done there now."""

    def __init__(self, hosts: Sequence[str], *, quiet: bool = False) -> None:
        self._rows: dict[str, tuple[str, str]] = dict.fromkeys(hosts, ("waiting", ""))
        self._quiet = quiet
        self._live: Any = None

    def __call__(self, host: str, state: str, text: str) -> None:
        if self._rows.get(host) == (state, text):
            return
        self._rows[host] = (state, text)
        if self._live is not None:
            self._live.update(self._drawn())
        elif not self._quiet:
            sys.stderr.write(clean(f"{host}: {text}").replace("\n", " ") + "\n")
            sys.stderr.flush()

    @contextmanager
    def shown(self) -> Iterator[HostTable]:
        if self._quiet or not sys.stderr.isatty():
            yield self
            return
        from rich.console import Console
        from rich.live import Live

        with Live(self._drawn(), console=Console(stderr=True), refresh_per_second=8) as self._live:
            yield self
        self._live = None

    def _drawn(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for host, (state, text) in self._rows.items():
            words = clean(text).replace("\n", " ")
            table.add_row(Text(clean(host)), Text(state, style=COLOURS.get(state, "")), Text(words[:100]))
        return table
