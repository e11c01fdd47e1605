"""What a host asks of its client, answered in a thread: trees, objects, secrets.

Invariant: nothing is read that was not asked for and is not of this build, and no more than `AHEAD` bytes
wait to be sent.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping

from cli.build.words import SecretPlace
from image.context.serve import Source, messages
from model.build import AskSecret, FromClient, Object, Scan, Scanned, Secret, Want, pack
from model.errors import ErrorBody, FlotaError, Internal, InvalidInput, NotFound

AHEAD = 4 << 20
MAX_SECRET = 500 << 10
"""Bytes, Docker's limit."""


class Answers:
    """`ask` and `take` are the loop's; `wake` is a descriptor that is written to when there is something to
    take."""

    def __init__(self, sources: Mapping[str, Source], secrets: Mapping[str, SecretPlace], wake: int) -> None:
        self._sources = sources
        self._secrets = secrets
        self._wake = wake
        self._asked: queue.SimpleQueue[Scan | Want | AskSecret] = queue.SimpleQueue()
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._error: FlotaError | None = None
        self._room = threading.Condition()
        threading.Thread(target=self._run, daemon=True, name="answers").start()

    def ask(self, question: Scan | Want | AskSecret) -> None:
        self._asked.put(question)

    def take(self) -> bytes:
        """What is to be sent next; empty: nothing now. Raises what a question could not be answered for."""
        if self._error is not None:
            raise self._error
        with self._room:
            if not self._frames:
                return b""
            data = b"".join(self._frames)
            self._frames.clear()
            self._size = 0
            self._room.notify()
            return data

    def _run(self) -> None:
        try:
            while True:
                question = self._asked.get()
                for message in self._answer(question):
                    self._put(pack(message))
        except FlotaError as error:
            self._error = error
        except Exception as error:
            self._error = Internal(
                f"a question of the host can't be answered: {type(error).__name__}: {error}"
            )
        os.write(self._wake, b"\0")

    def _put(self, frame: bytes) -> None:
        with self._room:
            while self._size >= AHEAD:
                self._room.wait()
            idle = not self._frames
            self._frames.append(frame)
            self._size += len(frame)
        if idle:
            os.write(self._wake, b"\0")

    def _answer(self, question: Scan | Want | AskSecret) -> Iterator[FromClient]:
        match question:
            case Scan():
                yield self._scanned(question)
            case Want():
                yield from self._objects(question)
            case AskSecret():
                yield Secret(ask=question.ask, value=self._secret(question.ident))

    def _scanned(self, scan: Scan) -> Scanned:
        try:
            source = self._sources.get(scan.context)
            if source is None:
                raise NotFound(f"there is no build context {scan.context[:80]!r} here")
            found = source.scan(scan.paths)
        except FlotaError as error:
            return Scanned(ask=scan.ask, error=ErrorBody.of(error))
        except Exception as error:
            wrong = Internal(f"the build context can't be read: {type(error).__name__}: {error}")
            return Scanned(ask=scan.ask, error=ErrorBody.of(wrong))
        return Scanned(ask=scan.ask, root=found.root, warnings=found.warnings)

    def _objects(self, want: Want) -> Iterator[Object]:
        source = self._sources.get(want.context)
        if source is None:
            yield Object(
                ask=want.ask, digest="".join(want.digests[:1]), gone=f"context {want.context[:80]!r}"
            )
        else:
            yield from messages(source, want)

    def _secret(self, ident: str) -> bytes | None:
        place = self._secrets.get(ident)
        return None if place is None else secret_value(ident, place)


def secret_value(ident: str, place: SecretPlace) -> bytes:
    """Raises InvalidInput, NotFound."""
    if place.env:
        return os.environb.get(os.fsencode(place.env), b"")
    try:
        with open(place.file, "rb") as file:
            value = file.read(MAX_SECRET + 1)
    except FileNotFoundError as error:
        raise NotFound(f"secret {ident}: {place.file}: no such file") from error
    except OSError as error:
        raise InvalidInput(f"secret {ident}: {place.file} can't be read: {error.strerror}") from error
    if len(value) > MAX_SECRET:
        raise InvalidInput(f"secret {ident} has more than {MAX_SECRET} bytes", hint="That is the limit")
    return value
