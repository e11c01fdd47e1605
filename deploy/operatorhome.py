"""Where the operator's own machine keeps what it knows of fleets: ~/.config/flota. Imports nothing: each
command asks."""

from __future__ import annotations

import os


def operator_home() -> str:
    """By the XDG Base Directory Specification."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(base, "flota")


def current_fleet() -> str:
    """The folder of the fleet that commands are for; it may not be there."""
    return os.path.join(operator_home(), "current")
