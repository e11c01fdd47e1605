"""Where the progress of a build is written: standard error, as a log, a live screen, JSON, or not at all."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from cli.build.progress import Progress, Screen, warned
from cli.context import familiar
from cli.render import clean
from model.build import Done, Exported, Failed, FromHost, Object, Want

PERIOD = 0.1
"""Seconds between two pictures of a live screen."""
_UP = "\x1b[{}A"
_CLEAR = "\r\x1b[J"


class Display(Protocol):
    progress: Progress
    period: float | None
    """Seconds after which `tick` wants to be called; None: never."""

    def take(self, message: FromHost) -> None: ...

    def tick(self) -> None: ...

    def pause(self) -> None:
        """Take away what changes: others write now."""
        ...

    def close(self) -> None:
        """The build is over: all is shown, and warnings at the end."""
        ...


class Silent:
    period: float | None = None

    def __init__(self) -> None:
        self.progress = Progress()

    def take(self, message: FromHost) -> None:
        self.progress.take(message, time.monotonic())

    def tick(self) -> None:
        return

    def pause(self) -> None:
        return

    def close(self) -> None:
        return


def result(done: Done) -> str:
    """One line for each image: its id and its names."""
    names = ", ".join(familiar(name) for name in done.names)
    where = f" on {clean(done.host)}" if done.host else ""
    lines = []
    for built in done.images:
        platform = f" ({clean(built.platform)})" if len(done.images) > 1 else ""
        if built.image:
            lines.append(
                f"{clean(built.image)}{platform}{f' named {clean(names)}' if names else ''}{where}\n"
            )
    return "".join(lines)


class Log(Silent):
    def take(self, message: FromHost) -> None:
        lines = self.progress.take(message, time.monotonic())
        if lines:
            write("".join(f"{line}\n" for line in lines))

        if isinstance(message, Done):
            write(result(message))

    def close(self) -> None:
        write(_warnings(self.progress))


class Json(Silent):
    """Every message that is for people, as a line of JSON."""

    def take(self, message: FromHost) -> None:
        import msgspec

        super().take(message)
        if not isinstance(message, Exported | Object | Want):
            write(msgspec.json.encode(message).decode() + "\n")


class Live(Silent):
    period: float | None = PERIOD

    def __init__(self) -> None:
        super().__init__()
        self._screen = Screen(self.progress, time.monotonic())
        self._lines = 0
        self._drawn = 0.0

    def take(self, message: FromHost) -> None:
        super().take(message)
        if isinstance(message, Done):
            self.pause()
            write(result(message))
        elif not isinstance(message, Failed):
            self.tick()

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._drawn >= PERIOD:
            self._drawn = now
            width, height = _size()
            self._draw(self._screen.now(now, width, height - 1), width)

    def close(self) -> None:
        self._draw((), _size()[0])
        write(_warnings(self.progress))

    def pause(self) -> None:
        self._draw((), _size()[0])

    def _draw(self, lines: Sequence[str], width: int) -> None:
        back = (_UP.format(self._lines) if self._lines else "") + _CLEAR
        past = "".join(f"{line[: max(1, width - 1)]}\n" for line in self._screen.over())
        write(back + past + "".join(f"{line}\n" for line in lines))
        self._lines = len(lines)


def display(kind: str) -> Display:
    """`auto`: live on a terminal, else a log."""
    if kind in ("quiet", "none"):
        return Silent()
    if kind == "rawjson":
        return Json()
    if kind == "tty" or (kind == "auto" and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"):
        return Live()
    return Log()


def write(text: str) -> None:
    if text:
        sys.stderr.write(text)
        sys.stderr.flush()


def _warnings(progress: Progress) -> str:
    found = [f" - {warned(one)}" for one in progress.warnings]
    if not found:
        return ""
    word = "warning" if len(found) == 1 else "warnings"
    return "\n".join((f"\n{len(found)} {word} (see `flota build --check`):", *found)) + "\n"


def _size() -> tuple[int, int]:
    """Columns and lines."""
    try:
        size = os.get_terminal_size(2)
    except OSError:
        return 80, 24
    return max(20, size.columns), max(4, size.lines)
