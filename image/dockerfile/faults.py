"""Errors of a Dockerfile, told with their place: one line for people, and the marks that a screen shows."""

from __future__ import annotations

from image.dockerfile.instruction import Spot
from model.errors import InvalidInput, Problem


def printable(text: str) -> str:
    """For a message: what a Dockerfile holds must not reach a terminal as it is."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


class DockerfileFault(InvalidInput):
    """`Dockerfile:7:12: what is wrong. What to do`. Nothing was changed."""

    def __init__(self, message: str, spot: Spot, *, file: str = "Dockerfile", hint: str = "") -> None:
        message, hint, file = printable(message), printable(hint), printable(file)
        self.spot = spot
        self.reason = message
        where = f"{file}:{spot.line}:{spot.column}"
        super().__init__(f"{where}: {message}", hint=hint, problems=(Problem(path=where, message=message),))


class Mistake(Exception):
    """What is wrong at an offset of an instruction's text. It never leaves this package: `parser` knows the
    place in the file, and makes a DockerfileFault of it."""

    def __init__(self, message: str, at: int, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.at = at
        self.hint = hint
