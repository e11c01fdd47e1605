"""Execs: made by one request, started by a second, asked about by others.

Invariant: bounded in number; the oldest that is over goes first, and one that lives is never forgotten.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass

from model.errors import Exhausted, NotFound
from model.ids import HostId
from model.streams import ExecSpec

MOST = 4096


@dataclass
class Exec:
    id: str
    container: str
    """Full id."""
    host: HostId
    spec: ExecSpec
    stdout: bool
    stderr: bool
    detach_keys: str = ""
    started: bool = False
    running: bool = False
    exit_code: int | None = None


class Execs:
    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._execs: OrderedDict[str, Exec] = OrderedDict()

    def add(self, container: str, host: HostId, spec: ExecSpec, *, stdout: bool, stderr: bool) -> Exec:
        """Raises Exhausted when too many live."""
        made = Exec(secrets.token_hex(32), container, host, spec, stdout, stderr)
        if len(self._execs) >= self._most:
            idle = [one for one in self._execs.values() if not one.running]
            over = next((one.id for one in (*(i for i in idle if i.started), *idle)), None)
            if over is None:
                raise Exhausted(f"{self._most} execs are running already")
            del self._execs[over]
        self._execs[made.id] = made
        return made

    def get(self, ident: str) -> Exec:
        """Raises NotFound."""
        found = self._execs.get(ident)
        if found is None:
            raise NotFound(f"no such exec instance: {ident[:80]}")
        return found

    def of(self, container: str) -> list[str]:
        """Ids of those that run in it."""
        return [one.id for one in self._execs.values() if one.container == container and one.running]
