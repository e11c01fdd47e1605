"""The links between which this host did not route before flota made it a router.

Invariant: what was routed before flota came stays so. A family that the host forwards already is left as it
is, and so are links that come later: whoever makes those finds a host that routes. What was found is kept in
a file, for from then on the host forwards, whoever asks.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from pathlib import Path

from aio.durable import write_file
from model.codec import decode_json, encode_json
from model.errors import InvalidInput
from net.kernel import sysctl
from net.naming import PREFIXES

log = logging.getLogger("flota.net")

SWITCHES: Mapping[str, str] = {"4": "net/ipv4/ip_forward", "6": sysctl.FORWARDING6}


class Unrouted:
    """`file` None: nothing is remembered, and all is taken as routed."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known: dict[str, tuple[str, ...]] | None = None

    def look(self) -> Mapping[str, tuple[str, ...]]:
        """By family's digit, of the network namespace of the calling thread. To be asked before a switch is
        changed."""
        if self._file is None:
            return {}
        if self._known is None:
            self._known = _read(self._file)
        values = sysctl.read(path for digit, path in SWITCHES.items() if digit not in self._known)
        new = [digit for digit, path in SWITCHES.items() if values.get(path) == "0"]
        if new:
            names = (name for _, name in socket.if_nameindex())
            links = tuple(sorted(n for n in names if n != "lo" and not n.startswith(PREFIXES)))
            self._known |= dict.fromkeys(new, links)
            try:
                _write(self._file, self._known)
            except OSError as error:
                log.warning("the next agent will not know what this host did not route: %s", error)
        return self._known


def _read(file: Path) -> dict[str, tuple[str, ...]]:
    try:
        return decode_json(file.read_bytes(), dict[str, tuple[str, ...]])
    except (FileNotFoundError, InvalidInput):
        return {}


def _write(file: Path, known: Mapping[str, tuple[str, ...]]) -> None:
    write_file(file, encode_json(known))
