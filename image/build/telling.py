"""What a build tells its client of its steps while they run.

Invariant: every step that has begun ends, once, with its outcome.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

from aio.clock import Clock
from image.build.base import Session
from model.build import BuildWarning, StepBegan, StepEnded, StepMoved
from model.errors import FlotaError
from model.image import Progress


class Telling:
    """Of one step."""

    def __init__(self, session: Session, number: int) -> None:
        self._session = session
        self.number = number
        self.cached = False
        self.where = ""

    def progress(self, said: Progress) -> None:
        """Of a pull."""
        what = " ".join(filter(None, (said.id, said.status)))
        self._session.tell(StepMoved(step=self.number, what=what, current=said.current, total=said.total))


class Teller:
    """`first` is the number of the first step, as no others of the build have."""

    def __init__(self, session: Session, clock: Clock, *, first: int = 1) -> None:
        self._session = session
        self._clock = clock
        self._numbers = itertools.count(first)

    @contextlib.contextmanager
    def step(self, name: str, line: int = 0) -> Iterator[Telling]:
        telling = Telling(self._session, next(self._numbers))
        began = self._clock.monotonic()
        self._session.tell(StepBegan(step=telling.number, name=name, at=self._clock.now(), line=line))
        error = "cancelled"
        try:
            yield telling
            error = ""
        except FlotaError as failure:
            error = failure.message
            raise
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
            raise
        finally:
            self._session.tell(
                StepEnded(
                    step=telling.number,
                    seconds=max(self._clock.monotonic() - began, 0.0),
                    cached=telling.cached,
                    where=telling.where,
                    error=error,
                )
            )

    def warn(self, code: str, message: str, *, line: int = 0, column: int = 0, hint: str = "") -> None:
        self._session.tell(BuildWarning(code=code, message=message, line=line, column=column, hint=hint))
