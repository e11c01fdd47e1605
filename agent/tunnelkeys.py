"""This host's keys of encrypted networks: made here, kept in a folder of root's, told by their public half.

A file per network and generation, which names the UDP port too: what was made once is found again by every
later agent. Invariant: a private key is nowhere but in its file and in the device that uses it; the files of
generations that are over, and what is no key, are removed once nothing of theirs stands.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path

from model.errors import FlotaError
from model.ids import NetworkId
from model.netoptions import encrypted
from model.tunnels import TunnelEnd, TunnelReport, end_of, keys_digest
from model.view import NetworkView
from net.state import LocalEnd
from net.wireguard import keys

log = logging.getLogger("flota.agent")
PORTS = (51820, 52843)
"""WireGuard's usual port and those after it: one for each network and generation."""
_FILE = re.compile(r"(?P<network>[0-9a-z-]{1,64})\.(?P<generation>\d{1,9})\.(?P<port>\d{1,5})\.key")

Ends = Mapping[str, tuple[LocalEnd, ...]]
"""By network."""


class TunnelKeys:
    """`folder` is made with mode 0700; `free_port` finds a UDP port of `PORTS` that nobody has, but for those
    that are given to it."""

    def __init__(self, folder: Path, free_port: Callable[[Container[tuple[str, int]]], int]) -> None:
        self._folder, self._free_port = folder, free_port
        self.trouble = ""
        """Why keys can't be made, for people: whoever drives this tries again after a while."""
        self.ends: Ends = {}
        """What `ensure` gave last."""
        self._unread: set[Path] = set()
        """Files that could not be read when they were last looked at."""

    def ensure(self, networks: Mapping[str, NetworkView]) -> Ends:
        """The ends of those of these networks that are encrypted, of every generation that hosts should
        have. What can't be made is missing, and `trouble` says why: its network reaches nobody elsewhere.
        For who applies them and tidies then; others look at `ends`."""
        before, self.trouble = self.trouble, ""
        self._unread = set()
        wanted = {str(ident): view for ident, view in networks.items() if encrypted(view.spec.options)}
        found: dict[str, tuple[LocalEnd, ...]] = {}
        for ident, view in sorted(wanted.items()):
            generations = range(view.keys.oldest, view.keys.newest + 1)
            ends = tuple(end for g in generations if (end := self._if_can_be(ident, g)) is not None)
            if ends:
                found[ident] = ends
        if self.trouble not in ("", before):
            log.error("%s", self.trouble)
        self.ends = found
        return found

    def _if_can_be(self, network: str, generation: int) -> LocalEnd | None:
        """One that can't be holds up no other: those stand and are used."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._end(network, generation)
        except (OSError, FlotaError) as error:
            self.trouble = f"keys of encrypted networks: {error}"
            return None

    def tidy(self, kept: Ends) -> None:
        """Remove all other keys, but for those that could not be read just now; call it when no device has
        them any more."""
        files = {end.key_file for ends in kept.values() for end in ends}
        for path, *_ in self._all():
            if str(path) not in files and path not in self._unread:
                path.unlink(missing_ok=True)

    def _end(self, network: str, generation: int) -> LocalEnd:
        for path, ident, number, port in self._all():
            if (ident, number) == (network, generation):
                return _local(path, generation, port, self._public(path))
        port = self._free_port({("udp", port) for *_, port in self._all()})
        path = self._folder / f"{network}.{generation}.{port}.key"
        return _local(path, generation, port, keys.make(path))

    def _public(self, path: Path) -> str:
        try:
            return keys.public(keys.read(path))
        except keys.Unreadable:
            self._unread.add(path)
            raise

    def _all(self) -> Iterable[tuple[Path, str, int, int]]:
        names = sorted(os.listdir(self._folder)) if self._folder.is_dir() else ()
        for name in names:
            if (match := _FILE.fullmatch(name)) is not None:
                yield self._folder / name, match["network"], int(match["generation"]), int(match["port"])


def _local(path: Path, generation: int, port: int, key: str) -> LocalEnd:
    return LocalEnd(generation=generation, key=key, port=port, key_file=str(path))


def reports(
    networks: Mapping[str, NetworkView], ends: Ends, *, stands: bool
) -> dict[NetworkId, TunnelReport]:
    """What the fleet should know of these networks' ends. `stands`: the kernel is as the networks say."""
    found: dict[NetworkId, TunnelReport] = {}
    for ident, mine in ends.items():
        view = networks.get(ident)
        if view is not None:
            told = tuple(TunnelEnd(generation=e.generation, key=e.key, port=e.port) for e in mine)
            met, sends = (_met(view), view.keys.sending) if stands else ("", 0)
            found[NetworkId(ident)] = TunnelReport(ends=told, met=met, sends=sends)
    return found


def _met(view: NetworkView) -> str:
    newest = view.keys.newest
    known = (end_of(peer.ends, newest) for peer in view.peers)
    return keys_digest(newest, (end.key for end in known if end is not None))
