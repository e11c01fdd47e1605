"""The Transport seam: programs run on a host, and files put there, over whatever leads to it.

Implementations: `deploy.ssh` (SSH), `deploy.local` (this machine), a fake in tests. Invariant: what is run is
a list of words and never text for a shell; the words and what is put are quoted here, in one place, for the
shell that sshd hands them to. Errors are `model.errors` and begin with the host's name.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from aio.subprocess import Heard
from model.errors import CommandFailed, Exhausted, FlotaError, Forbidden
from model.spec import Struct

OUTPUT_CAP = 1 << 20
"""Bytes of each stream of a program that are kept; a host may send more."""
CHUNK = 1 << 16
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PUT = """set -e
part="$1.$$"
trap 'rm -f "$part"' EXIT
umask 077
mkdir -p "$(dirname "$1")"
cat >"$part"
echo "$3  $part" | sha256sum -c - >/dev/null
chmod "$2" "$part"
mv "$part" "$1"
"""
"""`sh -c PUT sh TARGET MODE SHA256`: standard input becomes the file, whole or not at all."""

MAY_BE_ROOT = """test "$(id -u)" = 0 && exit 0
command -v sudo >/dev/null 2>&1 || exit 3
sudo -n true || exit 4
exit 5"""
"""Answers 0: we are root; 5: sudo makes us root; 3, 4: nothing does."""
IS_ROOT, NO_SUDO, SUDO_REFUSES, BY_SUDO = 0, 3, 4, 5


class Finished(Struct):
    """A program that has ended."""

    code: int
    """Exit status; 128 + N: ended by signal N; 255: nobody knows."""
    out: bytes = b""
    err: bytes = b""

    @property
    def text(self) -> str:
        return self.out.decode(errors="replace")

    @property
    def words(self) -> str:
        """The last line that it said, for people."""
        said = (self.err.strip() or self.out.strip()).decode(errors="replace").splitlines()
        return said[-1].strip()[:500] if said else f"exit status {self.code}"


class Transport(Protocol):
    """A connection to one host. All may raise Unavailable (it broke, or can't be made) and
    DeadlineExceeded."""

    @property
    def host(self) -> str:
        """As the operator wrote it, for messages."""
        ...

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float, root: bool = True
    ) -> Finished:
        """Run a program to its end, in the C locale. With `root` as root, by sudo where the user is another;
        raises Forbidden where that is not to be had. A failure of the program is a result."""
        ...

    async def put(self, source: Path, target: str, mode: int) -> None:
        """Make `target`, an absolute path, a copy of a file of this machine, as root. Its folder is made.
        Raises Exhausted where the disk is full, CommandFailed with the host's words for anything else."""
        ...

    def held(self, argv: Sequence[str], *, timeout: float) -> AbstractAsyncContextManager[str]:
        """A program, run as root, that lives as long as the context does and not much longer, whatever
        happens to this machine. Entered once it has said its first line (within `timeout` s), which is the
        value; empty: it ended without a word. It must end with its standard input, and is sent an empty line
        every BEAT seconds: silence means that we are gone."""
        ...

    async def close(self) -> None: ...


class Streaming(Transport, Protocol):
    """One that tells of output as it comes: for people who watch."""

    async def stream(self, argv: Sequence[str], *, timeout: float, root: bool = True, heard: Heard) -> int:
        """As `run`, but `heard` is told all that the program says, however much. Its exit code."""
        ...


BEAT = 10.0


def shell_line(argv: Sequence[str], *, sudo: bool) -> str:
    """What a POSIX shell reads as exactly these words; in the C locale, so that what programs say can be
    read, and with the system's folders on the path: daemons started by it have it for good."""
    return shlex.join([*(("sudo", "-n", "--") if sudo else ()), "env", "LC_ALL=C", f"PATH={PATH}", *argv])


def put_argv(target: str, mode: int, sha256: str) -> list[str]:
    return ["sh", "-c", PUT, "sh", target, f"{mode:o}", sha256]


def put_failure(host: str, target: str, done: Finished) -> FlotaError:
    """Why a PUT did not end well."""
    words = done.err.decode(errors="replace")
    if "No space left" in words or "ENOSPC" in words or "quota exceeded" in words:
        return Exhausted(
            f"{host}: no space left for {target}", hint="Make room on the host's disk, then run it again"
        )
    return CommandFailed(f"{host}: {target} can't be written: {done.words}")


def root_failure(host: str, done: Finished) -> FlotaError | None:
    """What MAY_BE_ROOT's answer means where it is bad."""
    if done.code in (IS_ROOT, BY_SUDO):
        return None
    if done.code == NO_SUDO:
        return Forbidden(
            f"{host}: this user is not root, and there is no sudo",
            hint="Log in as root (root@HOST), or install sudo there",
        )
    if done.code == SUDO_REFUSES:
        return Forbidden(
            f"{host}: sudo does not make this user root without a password ({done.words})",
            hint="Allow it: a line `USER ALL=(ALL) NOPASSWD: ALL` in a file of /etc/sudoers.d on the host",
        )
    return CommandFailed(f"{host}: the login shell does not run programs: {done.words}")


def file_digest(source: Path) -> str:
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def checked(
    to: Transport, argv: Sequence[str], *, timeout: float, what: str, stdin: bytes = b""
) -> Finished:
    """As `run`; raises CommandFailed, or Exhausted for a full disk, naming `what` was done, unless it went
    well."""
    done = await to.run(argv, stdin=stdin, timeout=timeout)
    if done.code == 0:
        return done
    if b"No space left on device" in done.err + done.out:
        raise Exhausted(
            f"{to.host}: {what} failed: no space left on device",
            hint="Make room on the host's disk, then run it again",
        )
    raise CommandFailed(f"{to.host}: {what} failed: {done.words}")
