"""Errors of those who read a stranger's documents, without what they had read.

Invariant: an error that leaves such a reader holds nothing of the document: by its traceback and its cause it
would hold a hundred times the document's size, for as long as anybody holds the error, and who waits for a
task that failed often does so until the next collection of cycles.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from model.errors import FlotaError

P = ParamSpec("P")
T = TypeVar("T")


def letting_go(read: Callable[P, T]) -> Callable[P, T]:
    """The reader, whose FlotaErrors have no cause, and no traceback from before they leave it."""

    @functools.wraps(read)
    def reader(*args: P.args, **words: P.kwargs) -> T:
        try:
            return read(*args, **words)
        except FlotaError as error:
            error.__cause__ = error.__context__ = None
            raise error.with_traceback(None) from None

    return reader
