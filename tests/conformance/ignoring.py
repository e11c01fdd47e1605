"""A pytest plugin for docker-py's own unit tests: its tables of ignore files judge flota's matcher.

Loaded by `-p` in the suite's environment, before its tests take `exclude_paths` by name. Docker's clients
keep the ignore file and the Dockerfile whatever the patterns say; so does this.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

from image.dockerfile.ignore import Ignore
from model.ignorefile import DEFAULT


def excluded(root: str, patterns: Sequence[str], dockerfile: str | None = None) -> set[str]:
    """The paths below `root` that are sent."""
    kept = (f"!{dockerfile or 'Dockerfile'}", f"!{DEFAULT}")
    ignore = Ignore.parse("\n".join((*patterns, *kept)).encode())
    found = set()
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.relpath(os.path.join(folder, name), root)
            if not ignore.excludes(path):
                found.add(path)
    return found


def pytest_configure() -> None:
    importlib.import_module("docker.utils").__dict__["exclude_paths"] = excluded
