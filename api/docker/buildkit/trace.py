"""What a build's host tells, as BuildKit's clients show it: vertexes, statuses and logs. Pure.

A step is a vertex, its digest made of the build's id and the step's number. Invariant: every vertex that was
begun is completed, at the latest by `ended`.
"""

from __future__ import annotations

import hashlib

from msgspec.structs import replace

from api.docker.buildkit.messages import (
    StatusResponse,
    Timestamp,
    Vertex,
    VertexLog,
    VertexStatus,
    VertexWarning,
)
from model.build import BuildWarning, FromHost, StepBegan, StepEnded, StepMoved, StepSaid


class Trace:
    """Of the build `ident`. `now` is unix seconds, everywhere."""

    def __init__(self, ident: str) -> None:
        self._ident = ident
        self._open: dict[int, Vertex] = {}
        self._moved: dict[int, dict[str, VertexStatus]] = {}
        """Of each step that runs: what is on its way, as it was told last."""

    def take(self, said: FromHost, now: float) -> StatusResponse | None:
        """None where there is nothing to show."""
        at = Timestamp.at(now)
        match said:
            case StepBegan():
                vertex = Vertex(digest=self.digest(said.step), name=said.name, started=at)
                self._open[said.step] = vertex
                return StatusResponse(vertexes=(vertex,))
            case StepSaid():
                vertex_of = self.digest(said.step)
                stream = 2 if said.stderr else 1
                log = VertexLog(vertex=vertex_of, timestamp=at, stream=stream, data=said.data)
                return StatusResponse(logs=(log,))
            case StepMoved():
                return StatusResponse(statuses=(self._status(said, at),))
            case StepEnded():
                return self._ended(said, now)
            case BuildWarning():
                return self._warning(said)
        return None

    def ended(self, error: str, now: float) -> StatusResponse | None:
        """What is still open is completed; by `error`, if the build has one."""
        at = Timestamp.at(now)
        left = tuple(replace(vertex, completed=at, error=error) for vertex in self._open.values())
        self._open.clear()
        return StatusResponse(vertexes=left) if left else None

    def digest(self, step: int) -> str:
        return "sha256:" + hashlib.sha256(f"{self._ident}/{step}".encode()).hexdigest()

    def _status(self, said: StepMoved, at: Timestamp) -> VertexStatus:
        moved = self._moved.setdefault(said.step, {})
        before = moved.get(said.what)
        over = said.total and said.current >= said.total
        status = moved[said.what] = VertexStatus(
            id=said.what,
            vertex=self.digest(said.step),
            current=said.current,
            total=said.total,
            timestamp=at,
            started=before.started if before else at,
            completed=at if over else None,
        )
        return status

    def _ended(self, said: StepEnded, now: float) -> StatusResponse:
        at = Timestamp.at(now)
        vertex = self._open.pop(said.step, None) or Vertex(digest=self.digest(said.step), started=at)
        if said.seconds:
            vertex = replace(vertex, started=Timestamp.at(now - said.seconds))
        moved = self._moved.pop(said.step, {}).values()
        left = [] if said.error else [status for status in moved if status.completed is None]
        return StatusResponse(
            vertexes=(replace(vertex, completed=at, cached=said.cached, error=said.error),),
            statuses=tuple(replace(status, timestamp=at, completed=at) for status in left),
        )

    def _warning(self, said: BuildWarning) -> StatusResponse:
        where = f"line {said.line}: " if said.line else ""
        short = f"{said.code}: {where}{said.message}".encode()
        detail = (said.hint.encode(),) if said.hint else ()
        return StatusResponse(
            warnings=(VertexWarning(vertex=self.digest(0), level=1, short=short, detail=detail),)
        )
