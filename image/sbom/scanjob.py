"""Finding the packages of a root, in a process of its own: `aio.warm` forks it.

It goes into the root, for good, before it looks at the first file; what it says are packages, compressed.
Invariants: only regular files are opened, and of each so much at most is read; an SQLite database is an
enemy's program (`image.sbom.rpmdb`).
"""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import msgspec

from image.confine import die_with_parent, into_root
from image.sbom import packages, rpmdb
from image.sbom.packages import Inventory, Package, System
from image.walk import walk
from model.errors import Damaged, ErrorBody, Exhausted, FlotaError, Internal
from model.spec import Struct

DPKG, DPKG_FOLDER = "/var/lib/dpkg/status", "/var/lib/dpkg/status.d"
APK = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
RPM = ("/var/lib/rpm/rpmdb.sqlite", "/usr/lib/sysimage/rpm/rpmdb.sqlite")
OLD_RPM = ("/var/lib/rpm/Packages", "/var/lib/rpm/Packages.db", "/usr/lib/sysimage/rpm/Packages.db")
RELEASE = ("/etc/os-release", "/usr/lib/os-release")
MAX_DATABASE = 96 << 20
"""Bytes of one file that is read."""
MAX_METADATA = 256 << 10
"""Bytes of a file of one package's metadata that are read."""
MAX_PACKAGES = 20_000
MAX_ENTRIES = 4_000_000


class Job(Struct):
    root: str


class Result(Struct):
    inventory: Inventory | None = None
    error: ErrorBody | None = None


def scanned() -> Inventory:
    """Of this process's root. Raises Exhausted, Unsupported."""
    found: dict[Package, None] = {}
    notes: list[str] = []

    def take(some: Iterator[Package]) -> None:
        for one in some:
            found[one] = None
            if len(found) > MAX_PACKAGES:
                raise Exhausted(f"more than {MAX_PACKAGES} packages are too many for a list of contents")

    def read(path: str, parse: Callable[[bytes, str], Iterator[Package]]) -> None:
        data = _content(path, MAX_DATABASE, notes)
        if data is not None:
            with _noted(path, notes):
                take(parse(data, path))

    read(DPKG, packages.dpkg)
    for name in _names(DPKG_FOLDER):
        if not name.endswith(".md5sums"):
            read(f"{DPKG_FOLDER}/{name}", packages.dpkg)
    for path in APK:
        read(path, packages.apk)
    for path in RPM:
        read(path, rpmdb.packages)
    if not any(one.kind == "rpm" for one in found):
        old = filter(_is_file, OLD_RPM)
        notes += [f"{path}: databases of rpm other than SQLite's are not read" for path in old]
    take(_python())
    release = next((data for path in RELEASE if (data := _content(path, MAX_METADATA, notes))), b"")
    order = sorted(found, key=lambda one: (one.kind, one.name, one.version, one.arch, one.where))
    system = packages.system(release) if release else System()
    return Inventory(packages=tuple(order), system=system, notes=tuple(notes[:20]))


def _python() -> Iterator[Package]:
    """Wherever in the root a package's metadata lies."""
    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for count, entry in enumerate(walk(top, upper=False)):
            if count > MAX_ENTRIES:
                raise Exhausted(f"more than {MAX_ENTRIES} files are too many for a list of contents")
            if not stat.S_ISREG(entry.status.st_mode) or not _is_metadata(entry.path):
                continue
            try:
                fd = entry.open()
            except OSError:
                continue
            with open(fd, "rb") as file:
                data = file.read(MAX_METADATA)
            yield from packages.python(data, "/" + packages.text(entry.path))
    finally:
        os.close(top)


def _is_metadata(path: bytes) -> bool:
    folder, _, name = path.rpartition(b"/")
    if name == b"METADATA":
        return folder.endswith(b".dist-info")
    return (name == b"PKG-INFO" and folder.endswith(b".egg-info")) or name.endswith(b".egg-info")


# -- files ------------------------------------------------------------------------------------------
def _content(path: str, limit: int, notes: list[str]) -> bytes | None:
    """None where there is none. Links are followed as the root has them; nobody changes it meanwhile."""
    if not _is_file(path):
        return None
    with _noted(path, notes), open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        data = file.read(limit + 1)
        if len(data) <= limit:
            return data
        notes.append(f"{path} has more than {limit} bytes and was not read")
    return None


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))[:MAX_PACKAGES]
    except OSError:
        return []


@contextlib.contextmanager
def _noted(path: str, notes: list[str]) -> Iterator[None]:
    """What can't be read is said in the document, and the rest is read."""
    try:
        yield
    except (OSError, rpmdb.Error, Damaged) as error:
        notes.append(f"{path} can't be read: {packages.text(str(error).encode())}")


def main(stdin: BinaryIO, stdout: BinaryIO) -> int:
    die_with_parent()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    job = msgspec.msgpack.decode(stdin.read(), type=Job)
    try:
        into_root(job.root)
        result = Result(inventory=scanned())
    except FlotaError as error:
        result = Result(error=ErrorBody.of(error))
    except MemoryError:
        result = Result(error=ErrorBody.of(Exhausted("its list of contents needs too much memory")))
    except Exception as error:
        result = Result(error=ErrorBody.of(Internal(f"list of contents: {type(error).__name__}: {error}")))
    stdout.write(zlib.compress(msgspec.msgpack.encode(result)))
    return 1 if result.error else 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin.buffer, sys.stdout.buffer))
