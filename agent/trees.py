"""Directories of ours, taken away whole."""

from __future__ import annotations

import shutil
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Idempotent. Raises OSError when something can't be removed; links are removed, not followed."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        if path.exists():
            raise  # somebody else removes in there at the same time
