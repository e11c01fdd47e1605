"""Runs on a host, by whatever Python it has: unpacks releases of flota, has its daemons run one of them,
tells what is there. Standard library alone, and syntax of old Pythons too, so that one says that it is too
old.

    python3 - VERB --root /opt/flota … <installer.py        one line of JSON on standard output

Each daemon has a link of its own to its release, and one to that before: `agent`, `agent.previous`, and so
on. `current` and `previous`, the command's, go with the agent's. Older hosts have the latter two alone.

Invariant: what has its name under `releases/` is whole and on the disk; a link is changed by one rename; a
release that a process runs from is never removed. Whatever ends this, the next run goes on from there.
"""

import argparse
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

LEAST = (3, 11)
DAEMONS = ("agent", "controller")
LINKS = ("current", "previous", *(link for name in DAEMONS for link in (name, name + ".previous")))
HERE = "{}.{}".format(*sys.version_info[:2])
SPARE = 64 << 20
"""Bytes of the disk that are left to others."""
PROBE = "import aiohttp, cryptography.x509, msgspec, pyroute2, sqlite3, ssl, zstandard, cli.main"
SCRIPT = "#!{python} -I\nfrom cli.main import main\n\nmain()\n"


class Refused(Exception):
    """`kind` is a code of flota's error tree."""

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.kind, self.message, self.hint = kind, message, hint


class Place:
    """The folder of all releases."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.releases = os.path.join(root, "releases")
        self.incoming = os.path.join(root, "incoming")

    def release(self, name: str) -> str:
        if not name or "/" in name or name.startswith("."):
            raise Refused("invalid_input", f"{name!r} is no release")
        return os.path.join(self.releases, name)

    def points(self, link: str) -> str:
        """The release that a link means; empty: none."""
        try:
            return os.path.basename(os.readlink(os.path.join(self.root, link)))
        except OSError:
            return ""

    def point(self, link: str, name: str) -> None:
        path = os.path.join(self.root, link)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + ".new")
        os.symlink(os.path.join("releases", name), path + ".new")
        os.rename(path + ".new", path)
        _sync(self.root)

    def pins(self) -> "dict[str, dict[str, str]]":
        """Of the daemons that have a link."""
        both = {name: (self.points(name), self.points(name + ".previous")) for name in DAEMONS}
        return {name: {"now": now, "before": before} for name, (now, before) in both.items() if now}

    def names(self) -> "list[str]":
        try:
            return sorted(n for n in os.listdir(self.releases) if not n.startswith("."))
        except OSError:
            return []

    @contextlib.contextmanager
    def locked(self) -> "Iterator[None]":
        """One at a time on a host; a killed one holds nothing."""
        os.makedirs(self.releases, mode=0o755, exist_ok=True)
        os.makedirs(self.incoming, mode=0o700, exist_ok=True)
        lock = os.open(os.path.join(self.root, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Refused("unavailable", "another installation runs on this host", "Try again") from None
            yield
        finally:
            os.close(lock)


def facts(place: Place, release: str = "") -> "dict[str, object]":
    """What is there, as `Installed` of deploy.bundle has it. `running`: releases that processes run from."""
    made = {name: manifest(place.release(name)) for name in place.names()}
    return {
        "current": place.points("current"),
        "previous": place.points("previous"),
        "pins": place.pins(),
        "aim": read_json(os.path.join(place.root, "upgrade.json")) or None,
        "releases": sorted(name for name in made if made[name]),
        "protocols": {name: made[name].get("protocol", 0) for name in made if made[name]},
        "running": sorted(running(place)),
        "present": bool(release) and fits(place, release),
        "free": _free(place.root),
    }


def manifest(folder: str) -> "dict[str, Any]":
    return read_json(os.path.join(folder, "release.json"))


def read_json(path: str) -> "dict[str, Any]":
    """Empty where there is nothing that can be read."""
    try:
        with open(path) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def fits(place: Place, name: str) -> bool:
    """It is there, and this host's Python is still the one that it was made for."""
    folder = place.release(name)
    interpreter = os.path.join(folder, "bin", "python")
    made_for = manifest(folder).get("target", {}).get("python")
    return made_for == HERE and os.access(interpreter, os.X_OK)


def running(place: Place) -> "set[str]":
    """The first word of what each process was started by is its release's own Python."""
    prefix = place.releases + os.sep
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                first = os.fsdecode(file.read().split(b"\0")[0])
        except OSError:
            continue  # it has just ended
        if first.startswith(prefix):
            found.add(first[len(prefix) :].split(os.sep)[0])
    return found


def install(place: Place, archive: str, digest: str) -> str:
    """Unpack an archive of deploy.bundle, which goes away whatever happens. Raises Refused."""
    aside = ""
    try:
        made = read_manifest(archive, digest)
        name = str(made["release"])
        folder = place.release(name)
        if fits(place, name):
            return name
        check_python(made["target"]["python"])
        if name in running(place):
            raise Refused("in_use", f"release {name} is damaged, but processes run from it")
        aside = os.path.join(place.releases, "." + name)
        shutil.rmtree(aside, ignore_errors=True)
        if _free(place.root) < made["size"] + SPARE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        unpack(archive, aside, folder)
        try_out(aside)
        sync_all(aside)
        if os.path.lexists(folder):  # for a Python that this host has no more
            os.rename(folder, aside + ".old")
        os.rename(aside, folder)
        _sync(place.releases)
        return name
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise Refused("unavailable", f"{error.filename or place.root}: {error.strerror}") from error
        need = "Make room for about 250 MB, or mount another disk there; nothing was changed"
        raise Refused("exhausted", f"the disk of {place.root} is full", need) from error
    finally:
        for path in (aside, aside + ".old") if aside else ():
            shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(archive)


def read_manifest(archive: str, digest: str) -> "dict[str, Any]":
    """The archive's own words, once it is the one that was sent."""
    found = hashlib.sha256()
    with open(archive, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            found.update(block)
    if found.hexdigest() != digest:
        raise Refused("damaged", f"{archive} is not what was sent", "Send it again")
    try:
        with tarfile.open(archive) as tar:
            first = tar.next()
            if first is None or first.name != "release.json":
                raise ValueError("no release.json")
            made: dict[str, Any] = json.load(tar.extractfile(first))  # type: ignore[arg-type]
            return {key: made[key] for key in ("release", "target", "size")}
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError) as error:
        raise Refused("damaged", f"{archive} is no bundle of flota: {error}") from error


def check_python(wanted: str) -> None:
    if wanted != HERE:
        raise Refused("unsupported", f"the bundle is for Python {wanted}, this is {HERE}")


def unpack(archive: str, aside: str, final: str) -> None:
    """As a virtual environment, of which `final` will be the name."""
    import venv

    venv.EnvBuilder(symlinks=True, with_pip=False).create(aside)
    own = os.path.join(aside, "bin")
    for name in os.listdir(own):
        if name.lower().startswith("activate"):
            os.unlink(os.path.join(own, name))  # they would name another folder
    shutil.rmtree(os.path.join(aside, "include"), ignore_errors=True)
    site = os.path.join(aside, "lib", "python" + HERE, "site-packages")
    with tarfile.open(archive) as tar:
        for member in tar:
            top, _, rest = member.name.partition("/")
            if member.name == "release.json":
                target = os.path.join(aside, "release.json")
            elif top == "site" and rest and ".." not in rest.split("/"):
                target = os.path.join(site, rest)
            else:
                raise Refused("damaged", f"the bundle holds {member.name!r}")
            source = tar.extractfile(member)
            if source is not None:
                write(target, source, member.mode & 0o755)
    path = os.path.join(own, "flota")
    with open(path, "w") as file:
        file.write(SCRIPT.format(python=os.path.join(final, "bin", "python")))
    os.chmod(path, 0o755)  # noqa: S103 - everybody's command
    compile_all(site)


def write(target: str, source: "IO[bytes]", mode: int) -> None:
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    with open(target, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    os.chmod(target, mode)


def compile_all(site: str) -> None:
    """What the bundle brought no byte code for; so nobody writes there later."""
    import compileall
    import py_compile

    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not os.path.isdir(os.path.join(site, "cli", "__pycache__")):
        compileall.compile_dir(site, quiet=2, invalidation_mode=mode, workers=0)


def try_out(folder: str) -> None:
    """A release whose libraries don't load here is none."""
    python = os.path.join(folder, "bin", "python")
    done = subprocess.run([python, "-I", "-c", PROBE], check=False, capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no word of why"]
        hint = "Is the bundle for this host's machine and C library?"
        raise Refused("unsupported", f"the release does not run on this host: {said[-1]}", hint)


def sync_all(folder: str) -> None:
    """All of its file system: thousands of small files at once."""
    import ctypes

    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
    finally:
        os.close(fd)


def switch(place: Place, name: str, command: str, daemons: "list[str]") -> None:
    """Have these daemons run that release, from their next start on; what they ran is the way back.
    `command`: where `flota` is to be found by everybody; one that is somebody else's stays."""
    if not fits(place, name):
        raise Refused("not_found", f"release {name} is not on this host")
    os.chmod(place.root, 0o755)  # noqa: S103 - `put` may have made it, for root alone
    ways = [(daemon, daemon + ".previous") for daemon in daemons]
    for link, back in [*ways, *([("current", "previous")] if "agent" in daemons else [])]:
        before = place.points(link)
        if not before:
            before, older = place.points("current"), place.points("previous")
            if older:
                place.point(back, older)
        if before and before != name:
            place.point(back, before)
        if place.points(link) != name:
            place.point(link, name)
    ours = os.path.join(place.root, "current", "bin", "flota")
    if command and not os.path.lexists(command):
        os.makedirs(os.path.dirname(command), mode=0o755, exist_ok=True)
        os.symlink(ours, command)


def prune(place: Place, daemons: "list[str]") -> None:
    """All but what a link means and what still runs. The host has these daemons: the links of another, which
    it had once, go."""
    for daemon in set(DAEMONS) - set(daemons or DAEMONS):
        for link in (daemon, daemon + ".previous"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(place.root, link))
    kept = {place.points(link) for link in LINKS} | running(place)
    for name in os.listdir(place.releases):
        if name not in kept:
            shutil.rmtree(os.path.join(place.releases, name), ignore_errors=True)
    for name in os.listdir(place.incoming):
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(place.incoming, name))


def remove(place: Place, command: str) -> None:
    """Nothing of flota's program is left. Raises Refused while it runs."""
    used = running(place)
    if used:
        raise Refused("in_use", f"processes run from {', '.join(sorted(used))}", "First: flota down --purge")
    with contextlib.suppress(OSError):
        if command and os.readlink(command) == os.path.join(place.root, "current", "bin", "flota"):
            os.unlink(command)
    shutil.rmtree(place.root)


def _free(path: str) -> int:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    there = os.statvfs(path)
    return there.f_bavail * there.f_frsize


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def act(words: argparse.Namespace) -> "dict[str, object]":
    if sys.version_info < LEAST:
        hint = "Install a newer one beside it; flota uses it for itself alone"
        raise Refused("unsupported", f"flota needs Python 3.11 or newer, this host's is {HERE}", hint)
    place = Place(words.root)
    if words.verb == "facts":
        return facts(place, words.release)
    with place.locked():
        name = words.release
        if words.verb == "install":
            name = install(place, words.archive, words.sha256)
        elif words.verb == "switch":
            switch(place, name, words.command, words.daemons.split(",") if words.daemons else list(DAEMONS))
        elif words.verb == "prune":
            prune(place, words.daemons.split(",") if words.daemons else [])
        elif words.verb == "remove":
            remove(place, words.command)
            return {}
        return facts(place, name)


def main(argv: "list[str]") -> int:
    parser = argparse.ArgumentParser(prog="flota installer")
    parser.add_argument("verb", choices=("facts", "prepare", "install", "switch", "prune", "remove"))
    for option in ("--root", "--release", "--archive", "--sha256", "--command", "--daemons"):
        parser.add_argument(option, default="")
    words = parser.parse_args(argv)
    os.umask(0o022)
    try:
        sys.stdout.write(json.dumps(act(words)) + "\n")
        return 0
    except Refused as refused:
        said = {"code": refused.kind, "message": refused.message, "hint": refused.hint}
    except OSError as error:
        said = {
            "code": "unavailable",
            "message": f"{error.filename or words.root}: {error.strerror}",
            "hint": "",
        }
    sys.stdout.write(json.dumps({"error": said}) + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
