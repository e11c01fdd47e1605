"""What this host needs to use the fleet's registry: a folder of certificates, as container tools have them.

    <state>/certs.d/<host:port>/ca.crt, host.cert, host.key (0600)

Invariant: the folder is the fleet's, whole, for the registry that the controller last named, and for no
other; it is made of the enrollment, so what is lost is made again with the next session.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
from pathlib import Path

from agent import join
from aio.durable import sync_folder
from model.errors import FlotaError, InvalidInput

log = logging.getLogger("flota.agent")
_PLACE = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}\Z")


def certificates(state: Path) -> Path:
    """The folder with one folder per registry; a registry client looks for its own there."""
    return state / "certs.d"


def named(state: Path) -> str:
    """host:port of the fleet's registry, as the controller last named it; empty: there is none."""
    try:
        places = [entry for entry in os.listdir(certificates(state)) if _PLACE.match(entry)]
    except FileNotFoundError:
        return ""
    return places[0] if places else ""


def trust(state: Path, registry: str) -> None:
    """The fleet's registry is `registry` (host:port), or there is none (empty). Blocks for some writes. A
    host that can't do this is a member of the fleet all the same: it is told in the log."""
    try:
        _trust(state, registry)
    except (OSError, FlotaError) as error:
        log.error("this host can't use the fleet's registry: %s", error)


def _trust(state: Path, registry: str) -> None:
    """Raises OSError; InvalidInput for a name that is none; NotFound without an enrollment."""
    folder = certificates(state)
    if registry and not _PLACE.match(registry):
        raise InvalidInput(f"the controller names a registry {registry[:80]!r}, which is no HOST:PORT")
    files = _files(state) if registry else {}
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry.name != registry or _read(entry) != files:
                shutil.rmtree(entry)
    if registry and not (folder / registry).is_dir():
        folder.mkdir(mode=0o700, exist_ok=True)
        _make(folder, registry, files)


def _files(state: Path) -> dict[str, bytes]:
    enrollment = join.load(state)
    return {
        "ca.crt": enrollment.ca.encode(),
        "host.cert": enrollment.certificate.encode(),
        "host.key": enrollment.key.encode(),
    }


def _read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _make(folder: Path, registry: str, files: dict[str, bytes]) -> None:
    """It gets its name once it is whole."""
    aside = folder / f".{secrets.token_hex(8)}"
    aside.mkdir(mode=0o700)
    for name, data in files.items():
        fd = os.open(aside / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    aside.rename(folder / registry)
    sync_folder(folder)
