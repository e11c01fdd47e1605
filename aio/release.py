"""Which release of flota this process runs from."""

from __future__ import annotations

import functools
import json
import os
import sys


@functools.cache
def running() -> str:
    """Its name, as `deploy.bundle` made it; empty where flota runs from a clone or was installed otherwise.
    A process runs from one release, whatever becomes the current one meanwhile."""
    try:
        with open(os.path.join(sys.prefix, "release.json")) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return ""
    name = found.get("release") if isinstance(found, dict) else None
    return name if isinstance(name, str) else ""
