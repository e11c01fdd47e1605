"""What a build tells, as the lines of Docker's classic builder. Pure.

`Step n/m : …` is printed once for each instruction: our steps know their lines, and what stands between them
changes only the image's configuration. Stages are built side by side, so steps of one may stand between those
of another.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from typing import Any

from api.docker.images.names import full, short
from api.docker.images.progress import Message, bar
from model.build import (
    BuildWarning,
    Done,
    Failed,
    FromHost,
    Instructed,
    Outline,
    StepBegan,
    StepEnded,
    StepMoved,
    StepSaid,
)
from model.errors import CommandFailed, FlotaError, InvalidInput, NotFound
from model.registries import familiar

_RED, _PLAIN = "\x1b[91m", "\x1b[0m"
_PULLED = re.compile(r"([0-9a-f]{12}) (.+)\Z", re.DOTALL)
_WORDS = re.compile(r"RUN\s+(?:--\S+\s+)*", re.IGNORECASE)


class CommandEnded(CommandFailed):
    """A RUN whose command did not end well."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Output:
    """Of one build. `quiet`: nothing but the image's id."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._lines: Sequence[Instructed] = ()
        self._printed: set[int] = set()
        self._names: dict[int, str] = {}
        self._decoders: dict[tuple[int, bool], Any] = {}

    def take(self, said: FromHost) -> Iterator[Message]:
        """What is to be shown of it; of the last word see `done` and `failure`."""
        if isinstance(said, Outline):
            self._lines = said.instructions
        elif self._quiet:
            return
        elif isinstance(said, StepBegan):
            self._names[said.step] = said.name
            yield from self._until(said.line)
        elif isinstance(said, StepSaid):
            text = self._decoded(said)
            if text:
                yield stream(f"{_RED}{text}{_PLAIN}" if said.stderr else text)
        elif isinstance(said, StepMoved):
            yield from self._moved(said)
        elif isinstance(said, StepEnded):
            if said.cached and said.step > 0:
                yield stream(" ---> Using cache\n")
        elif isinstance(said, BuildWarning):
            yield stream(f"[Warning] {said.message}\n")

    def _until(self, line: int) -> Iterator[Message]:
        """Instructions that were not told yet: those of one stage up to this line."""
        if not line:
            return
        places = [at for at, one in enumerate(self._lines) if one.line <= line]
        starts = [at for at in places if self._lines[at].source[:5].upper() == "FROM "]
        first = starts[-1] if len(starts) > 1 else 0
        yield from self._told(range(first, places[-1] + 1 if places else 0))

    def _told(self, places: Sequence[int]) -> Iterator[Message]:
        for at in places:
            if at not in self._printed:
                self._printed.add(at)
                yield stream(f"Step {at + 1}/{len(self._lines)} : {self._lines[at].source}\n")

    def _decoded(self, said: StepSaid) -> str:
        key = said.step, said.stderr
        if key not in self._decoders:
            self._decoders[key] = codecs.getincrementaldecoder("utf-8")("replace")
        text: str = self._decoders[key].decode(said.data)
        return text

    def _moved(self, said: StepMoved) -> Iterator[Message]:
        """Of pulls; how far a context or an export is, Docker tells in no words."""
        match = _PULLED.match(said.what)
        if match is None:
            return
        made: dict[str, Any] = {"status": match[2], "progressDetail": {}, "id": match[1]}
        if said.total or said.current:
            made["progressDetail"] = {"current": said.current, "total": said.total}
            made["progress"] = bar(said.current, said.total)
        yield made

    def done(self, done: Done) -> Iterator[Message]:
        ident = next((built.image for built in done.images if built.image), "")
        if self._quiet:
            yield stream(f"{ident}\n")
            return
        yield from self._told(range(len(self._lines)))
        if not ident:
            return
        yield stream(f" ---> {short(ident)}\n")
        yield {"aux": {"ID": ident}}
        yield stream(f"Successfully built {short(ident)}\n")
        for name in done.names:
            yield stream(f"Successfully tagged {familiar(full(name))}\n")

    def failure(self, failed: Failed, file: str) -> FlotaError:
        """In Docker's words: of a RUN its command and exit code, of a Dockerfile that is not there."""
        error = failed.error.to_error()
        source = next((one.source for one in self._lines if one.line == failed.line), "")
        if failed.exit_code and source:
            words = _WORDS.sub("", source, count=1)
            command = words if words.startswith("[") else f"/bin/sh -c {words}"
            message = f"The command '{command}' returned a non-zero code: {failed.exit_code}"
            return CommandEnded(message, failed.exit_code)
        if isinstance(error, NotFound) and not self._lines and file in error.message:
            return InvalidInput(f"Cannot locate specified Dockerfile: {file}")
        if isinstance(error, NotFound):
            return InvalidInput(error.message, hint=error.hint)
        return error


def stream(text: str) -> Message:
    return {"stream": text}
