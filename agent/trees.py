"""Directories of ours, taken away whole."""

from __future__ import annotations

import errno
from pathlib import Path

from aio.deletion import delete

_TURNS = 100
_OTHERS = (errno.ENOENT, errno.ENOTEMPTY)
"""What is said when somebody else removes, or makes something, in there at the same time."""


def remove_tree(path: Path) -> None:
    """Idempotent, also where somebody else is at it. Raises OSError when something can't be removed; links
    are removed, not followed."""
    for turn in range(_TURNS):
        try:
            delete(path)
            return
        except OSError as error:
            if error.errno == errno.ENOENT and not path.exists():
                return
            if error.errno not in _OTHERS or turn == _TURNS - 1:
                raise
