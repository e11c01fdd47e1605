"""This terminal, lent to a shell in a failed step.

Invariant: it is as it was once `close` was called.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import termios
import tty
from typing import Any

from model.build import Typed, pack

INPUT = 0
CHUNK = 1 << 12


class Terminal:
    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._before: list[Any] | None = None
        self._signals: Any = None
        self._changed = False
        self.taken = 0
        """The step whose shell has it; 0: none."""

    def take(self, step: int) -> None:
        self.taken = step
        self._changed = True
        if os.isatty(INPUT):
            self._before = termios.tcgetattr(INPUT)
            tty.setraw(INPUT, termios.TCSANOW)
            self._signals = signal.signal(signal.SIGWINCH, self._resize)
        try:
            self._selector.register(INPUT, selectors.EVENT_READ, "typed")
        except PermissionError:  # a plain file: all of it is typed at once
            self._changed = True

    def typed(self) -> bytes:
        """Frames for the host: what was typed, or its end."""
        try:
            data = os.read(INPUT, CHUNK)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(INPUT)
        return pack(Typed(data=data))

    def resized(self) -> bytes:
        if not self._changed or not self.taken:
            return b""
        self._changed = False
        try:
            size = os.get_terminal_size(INPUT)
        except OSError:
            return b""
        return pack(Typed(rows=size.lines, cols=size.columns))

    def show(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def close(self) -> None:
        if self._before is not None:
            termios.tcsetattr(INPUT, termios.TCSADRAIN, self._before)
            signal.signal(signal.SIGWINCH, self._signals)
            self._before = None
        self.taken = 0

    def _resize(self, *_: object) -> None:
        self._changed = True
