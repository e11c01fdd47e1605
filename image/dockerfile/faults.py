"""An error of a Dockerfile, told with its place: one line for people, and the marks that a screen shows."""

from __future__ import annotations

from image.dockerfile.instruction import Spot
from model.errors import InvalidInput, Problem


class DockerfileFault(InvalidInput):
    """`Dockerfile:7:12: what is wrong. What to do`. Nothing was changed."""

    def __init__(self, message: str, spot: Spot, *, file: str = "Dockerfile", hint: str = "") -> None:
        self.spot = spot
        self.reason = message
        where = f"{file}:{spot.line}:{spot.column}"
        super().__init__(f"{where}: {message}", hint=hint, problems=(Problem(path=where, message=message),))
