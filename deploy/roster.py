"""What the operator's own machine knows of fleets: credentials, and how their hosts are reached by SSH.

    ~/.config/flota/fleets/ID/admin.json     an admin's credentials (as the controller made them)
    ~/.config/flota/fleets/ID/hosts.json     its hosts: name, id, how they are reached
    ~/.config/flota/current                  the fleet that commands are for, unless something else is said

Invariant: files are 0600 and replaced whole; two commands at once lose nothing of each other's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from deploy.inventory import SSH_PORT, Target
from deploy.operatorhome import operator_home
from model.codec import decode_json, encode_json
from model.errors import Ambiguous, InvalidInput, Unavailable
from model.ids import short
from model.spec import Struct

_SHORT_ID = re.compile(r"[0-9a-f]{12}\Z")


class KnownHost(Struct):
    name: str
    host_id: str
    target: Target
    controller: bool = False


class _Hosts(Struct):
    hosts: tuple[KnownHost, ...] = ()


class Roster:
    """Of one fleet. `home`: ~/.config/flota."""

    def __init__(self, fleet_id: str, home: Path | None = None) -> None:
        self._home = home or Path(operator_home())
        self._id = short(fleet_id)
        self._fleet = Path("fleets") / self._id
        self.folder = self._home / self._fleet
        self._path = self.folder / "hosts.json"

    @classmethod
    def of_folder(cls, folder: str) -> Roster:
        """As `current` names it, where the fleet itself can't be asked for its id."""
        return cls(Path(folder).resolve().name)

    def hosts(self) -> tuple[KnownHost, ...]:
        """In order of their names. Raises InvalidInput for a file that was spoilt."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return ()
        return decode_json(data, _Hosts, str(self._path)).hosts

    def find(self, ref: str) -> KnownHost | None:
        """By name, id, or how it is reached. Raises Ambiguous: they may be taken out by that."""
        known = self.hosts()
        by_name = [one for one in known if ref in (one.name, one.host_id)]
        by_target = [one for one in known if ref == str(one.target)]
        found = by_name[:1] or by_target or [one for one in known if ref == one.target.host]
        if len(found) > 1:
            names = ", ".join(one.name for one in found)
            raise Ambiguous(f"several hosts are reached by {ref[:80]!r}: {names}", hint="Say it by its name")
        return next(iter(found), None)

    def remember(self, hosts: Iterable[KnownHost]) -> tuple[KnownHost, ...]:
        """Those that were not believed: who a host is, it says itself."""
        asked = tuple(hosts)
        with self._changing() as before:
            doubted = tuple(host for host in asked if _is_another(host, before))
            new = {host.name: host for host in asked if host not in doubted}
            kept = {
                host.name: host for host in before if host.host_id not in {h.host_id for h in new.values()}
            }
            self._store({**kept, **new}.values())
        return doubted

    def forget(self, name: str) -> None:
        with self._changing() as before:
            self._store(host for host in before if host.name != name)

    def end(self) -> None:
        """There is no such fleet any more."""
        link = self._home / "current"
        with self._changing():
            if link.is_symlink() and link.readlink() == self._fleet:
                link.unlink()
            for path in (self._path, self.folder / "admin.json"):
                path.unlink(missing_ok=True)

    def keep_credentials(self, admin: bytes) -> None:
        """And point commands at this fleet."""
        with self._changing():
            _write(self.folder / "admin.json", admin)
            link = self._home / "current"
            aside = self._home / ".current"
            aside.unlink(missing_ok=True)
            aside.symlink_to(self._fleet)
            aside.rename(link)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[KnownHost, ...]]:
        if not _SHORT_ID.match(self._id):  # a controller's word, and a folder of ours
            raise InvalidInput(f"{self._id!r} is no id of a fleet")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self.folder / ".lock", "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield self.hosts()
        except OSError as error:
            raise Unavailable(
                f"{error.filename or self.folder}: {error.strerror}", hint="Can it be written?"
            ) from error

    def _store(self, hosts: Iterable[KnownHost]) -> None:
        ordered = tuple(sorted(hosts, key=lambda host: host.name))
        _write(self._path, encode_json(_Hosts(hosts=ordered)))


def _is_another(new: KnownHost, before: Iterable[KnownHost]) -> bool:
    """Where one host was reached, another answers now that is reached elsewhere, as far as we know."""
    elsewhere = any(_place(old) != _place(new) for old in before if old.host_id == new.host_id)
    taken = any(_place(old) == _place(new) for old in before if old.host_id != new.host_id)
    return elsewhere and taken


def _place(known: KnownHost) -> tuple[str, int, str]:
    return known.target.host, known.target.port or SSH_PORT, known.target.jump


def _write(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
