"""Pipes through which bytes go from socket to socket without entering this process (splice(2)).

A pipe belongs to a direction of a connection only while something is in it; empty ones are shared by all, so
that ten thousand idle connections need a handful.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

SIZE = 256 << 10
"""Bytes that fit; the kernel gives less to a user who has many."""
MOST_SPARE = 64
Pipe = tuple[int, int]
"""Descriptors to read from and to write to."""


class Pipes:
    def __init__(self) -> None:
        self._spare: list[Pipe] = []

    def take(self) -> Pipe:
        """An empty one. Raises OSError."""
        if self._spare:
            return self._spare.pop()
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(PermissionError):  # this user has many pages in pipes
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, SIZE)
        return pipe

    def give(self, pipe: Pipe) -> None:
        """It is empty."""
        if len(self._spare) < MOST_SPARE:
            self._spare.append(pipe)
        else:
            self.drop(pipe)

    def drop(self, pipe: Pipe) -> None:
        """With whatever is in it."""
        os.close(pipe[0])
        os.close(pipe[1])

    def close(self) -> None:
        for pipe in self._spare:
            self.drop(pipe)
        self._spare.clear()
