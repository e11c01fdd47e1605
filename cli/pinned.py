"""Which release a daemon of this host is started from, whoever's command line asks for it.

Invariant: a host's installer alone writes the links (`deploy.installer`); a daemon that has one is started by
way of it, so that neither the command nor the other daemon takes it along to another release.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path


def pinned(daemon: str, of: str = sys.prefix) -> str:
    """The program of that daemon's own release, by way of its link; empty where there is none, or `of` is no
    release of a host."""
    prefix = Path(of)
    script = prefix.parent.parent / daemon / "bin" / "flota"
    return str(script) if prefix.parent.name == "releases" and script.exists() else ""


def program(daemon: str, of: str = sys.prefix) -> tuple[str, ...]:
    """The words that start flota as that daemon; where it has no link of its own, by way of `current` if this
    is the release that is it."""
    if own := pinned(daemon, of):
        return (own,)
    prefix = Path(of)
    current = prefix.parent.parent / "current"
    with contextlib.suppress(OSError):
        if prefix.parent.name == "releases" and current.resolve() == prefix.resolve():
            prefix = current
    script = prefix / "bin" / "flota"
    return (str(script),) if script.exists() else (sys.executable, "-P", "-m", "cli.main")
