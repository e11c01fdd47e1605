"""Work for `aio.warm`: what the first line asks for."""

from __future__ import annotations

import os
import signal
from typing import BinaryIO

from image.confine import die_with_parent


def main(stdin: BinaryIO, stdout: BinaryIO) -> int:
    """`echo`: the rest; `pid`, `parent`: whose; `sleep FILE`: writes the pid there, until the input ends, and
    then says `awake`."""
    die_with_parent()
    verb, _, word = stdin.readline().strip().partition(b" ")
    if verb == b"echo":
        stdout.write(stdin.read())
    elif verb == b"pid":
        stdout.write(b"%d" % os.getpid())
    elif verb == b"parent":
        stdout.write(b"%d" % os.getppid())
    elif verb == b"sleep":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open(word, "w") as file:
            file.write(str(os.getpid()))
        stdin.read()
        stdout.write(b"awake")
    else:
        raise ValueError("no such work")
    return 0
