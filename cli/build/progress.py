"""How a build goes, from what its host tells: lines for a log, or the few lines of a screen. Pure.

Invariant: what steps print is a stranger's: of its controls only colours are left, and a screen never gets
more lines than it has, each no longer than it is wide.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Sequence

from cli.printout import Printout
from cli.render import clean
from model.build import (
    BuildWarning,
    FromHost,
    Placed,
    StepBegan,
    StepEnded,
    StepMoved,
    StepSaid,
)
from model.quantity import format_size

_COLOUR = re.compile(r"\x1b\[[\d;:]*m", re.ASCII)
TAIL = 40
"""Lines of a step's output that are kept for its failure."""
SHOWN = 6
"""Lines of a running step's output on a screen."""
LONGEST = 4000
"""Characters of one line; what is longer is cut into several."""
MOVES = 1.0
"""Seconds between two lines about one movement."""


class _Output:
    """A step's output as lines, each with the moment at which it was whole."""

    def __init__(self) -> None:
        self._printouts = {False: Printout(), True: Printout()}
        self._open = {False: "", True: ""}

    def feed(self, data: bytes, *, stderr: bool) -> list[str]:
        text = self._open[stderr] + self._printouts[stderr].shown(data).replace("\r\n", "\n")
        *whole, rest = text.split("\n")
        while len(rest) > LONGEST:
            whole.append(rest[:LONGEST])
            rest = rest[LONGEST:]
        self._open[stderr] = rest
        return [line for long in whole for line in _cut(_last_state(long))]

    def rest(self) -> list[str]:
        """What no line end came after."""
        left = [_last_state(text) for text in self._open.values() if text]
        self._open = {False: "", True: ""}
        return left


class Step:
    def __init__(self, number: int, name: str, began: float, line: int) -> None:
        self.number = number
        self.name = name
        self.began = began
        self.line = line
        self.output = _Output()
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.moves: dict[str, StepMoved] = {}
        self.ended: StepEnded | None = None

    def took(self, now: float) -> float:
        return self.ended.seconds if self.ended is not None else max(0.0, now - self.began)


class Progress:
    """All steps of a build. `lines` are those of a log, of one message."""

    def __init__(self) -> None:
        self.steps: dict[int, Step] = {}
        self.warnings: list[BuildWarning] = []
        self.place: Placed | None = None
        self._last = 0
        self._numbers = itertools.count(1)
        self._moved: dict[tuple[int, str], float] = {}
        self._told: dict[tuple[int, str], StepMoved] = {}

    def take(self, message: FromHost, now: float) -> list[str]:
        match message:
            case Placed():
                self.place = message
                return [f"building on {_line(message.host)}: {_line(message.why)}"]
            case StepBegan():
                name = _line(message.name)
                step = self._begun(message.step, name, now, message.line)
                return self._of(step.number, [name])
            case StepSaid():
                return self._said(self.step(message.step, now), message, now)
            case StepMoved():
                return self._movement(self.step(message.step, now), message, now)
            case StepEnded():
                return self._end(self.step(message.step, now), message, now)
            case BuildWarning():
                self.warnings.append(message)
        return []

    def step(self, number: int, now: float) -> Step:
        known = self.steps.get(number)
        return known if known is not None else self._begun(number, f"step {number}", now, 0)

    def _begun(self, number: int, name: str, now: float, line: int) -> Step:
        """Steps are numbered anew as they begin: hosts number those apart that a Dockerfile does not have."""
        step = self.steps[number] = Step(next(self._numbers), name, now, line)
        return step

    def running(self) -> list[Step]:
        return [step for step in self.steps.values() if step.ended is None]

    def failed(self) -> Step | None:
        """The step whose error ended the build."""
        found = (s for s in self.steps.values() if s.ended is not None and s.ended.error)
        return next(found, None)

    def _said(self, step: Step, message: StepSaid, now: float) -> list[str]:
        lines = step.output.feed(message.data, stderr=message.stderr)
        step.tail += lines
        return self._of(step.number, [f"{step.took(now):.2f} {line}" for line in lines])

    def _movement(self, step: Step, message: StepMoved, now: float) -> list[str]:
        step.moves[message.what] = message
        key = (step.number, message.what)
        whole = 0 < message.total <= message.current
        if not whole and now - self._moved.get(key, -MOVES) < MOVES:
            return []
        self._moved[key] = now
        self._told[key] = message
        return self._of(step.number, [moved(message)])

    def _end(self, step: Step, message: StepEnded, now: float) -> list[str]:
        rest = step.output.rest()
        step.tail += rest
        lines = [moved(one) for what, one in step.moves.items() if self._told.get((step.number, what)) != one]
        lines += [f"{step.took(now):.2f} {line}" for line in rest]
        step.ended = message
        return self._of(step.number, [*lines, outcome(message)])

    def _of(self, number: int, lines: Sequence[str]) -> list[str]:
        """With the step's number; an empty line before another step's."""
        if not lines:
            return []
        gap = [""] if self._last not in (0, number) else []
        self._last = number
        return [*gap, *(f"#{number} {line}" for line in lines)]


class Screen:
    """What a terminal shows: steps that are over scroll away above the lines of those that run."""

    def __init__(self, progress: Progress, now: float) -> None:
        self._progress = progress
        self._began = now
        self._told: set[int] = set()

    def over(self) -> list[str]:
        """Lines of steps that have ended since the last call."""
        lines = []
        for step in self._progress.steps.values():
            if step.ended is not None and step.number not in self._told:
                self._told.add(step.number)
                lines.append(_past(step, step.ended))
        return lines

    def now(self, now: float, width: int, height: int) -> list[str]:
        """At most `height` lines of at most `width` characters."""
        running = self._progress.running()
        done = len(self._progress.steps) - len(running)
        place = f" on {_line(self._progress.place.host)}" if self._progress.place is not None else ""
        head = f"[+] Building {now - self._began:.1f}s ({done}/{len(self._progress.steps)}){place}"
        blocks = [[_current(step, now), *_inner(step)] for step in running]
        lines = [head]
        room = max(1, height - 1)
        for left, block in zip(range(len(blocks), 0, -1), blocks, strict=True):
            fair = max(1, (room - (len(lines) - 1)) - (left - 1))
            lines += [block[0], *block[max(1, len(block) - fair + 1) :]] if fair > 1 else block[:1]
        return [_fit(line, width) for line in lines[:height]]


def moved(message: StepMoved) -> str:
    """`transferring context: 3.1MB / 10MB`."""
    what, current = _line(message.what), format_size(message.current)
    return f"{what}: {current} / {format_size(message.total)}" if message.total else f"{what}: {current}"


def outcome(message: StepEnded) -> str:
    where = f" from {_line(message.where)}" if message.where else ""
    if message.error:
        return f"ERROR: {_line(message.error)}"
    return f"CACHED{where}" if message.cached else f"DONE {message.seconds:.1f}s"


def warned(warning: BuildWarning) -> str:
    place = f" (line {warning.line})" if warning.line else ""
    hint = f". {warning.hint}" if warning.hint else ""
    return _line(f"{warning.code}: {warning.message}{place}{hint}")


def _past(step: Step, ended: StepEnded) -> str:
    if ended.error:
        return f" => ERROR {step.name}"
    cached = "CACHED " if ended.cached else ""
    where = f" ({_line(ended.where)})" if ended.where else ""
    return f" => {cached}{step.name}{where}" + ("" if ended.cached else f"  {ended.seconds:.1f}s")


def _current(step: Step, now: float) -> str:
    return f" => {step.name}  {step.took(now):.1f}s"


def _inner(step: Step) -> list[str]:
    moves = [f" => => {moved(move)}" for move in step.moves.values()]
    return [*moves[-SHOWN:], *(f" => => # {line}" for line in list(step.tail)[-SHOWN:])]


def _last_state(line: str) -> str:
    """Of a line that was written over itself, as programs draw their own progress; colours end with it."""
    last = line.rstrip("\r").rpartition("\r")[2]
    return f"{last}\x1b[0m" if "\x1b" in last else last


def _fit(line: str, width: int) -> str:
    plain = _line(_COLOUR.sub("", line)).replace("\t", "    ")
    return plain if len(plain) < width else plain[: max(0, width - 2)] + "…"


def _line(text: str) -> str:
    """One line of a stranger's words."""
    return clean(text).replace("\n", " ")


def _cut(line: str) -> list[str]:
    return [line[at : at + LONGEST] for at in range(0, len(line), LONGEST)] or [""]
