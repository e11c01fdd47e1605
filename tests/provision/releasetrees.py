"""Other releases of flota than this one: copies of its code with a little of it changed.

The operator's `flota` is of the release whose folder is on its PYTHONPATH.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy.bundle import HOME, PACKAGES

BROKEN = """
from model.errors import Unsupported

raise Unsupported("this release is broken on purpose")
"""


def copy(folder: Path, version: str, *broken: str) -> Path:
    """A release of that version, in which these modules (paths) fail as they are imported."""
    tree = folder / f"tree-{version}"
    for package in PACKAGES:
        shutil.copytree(HOME / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "model" / "version.py").write_text(f'"""Of a test."""\n\nVERSION = "{version}"\n')
    for module in broken:
        path = tree / module
        head, found, rest = path.read_text().partition("from __future__ import annotations\n")
        assert found, f"{module} begins otherwise"
        path.write_text(f"{head}{found}{BROKEN}{rest}")
    return tree
