"""Plain files of a build's results: one tar, with a folder for each platform where there are several.

Invariant: of one platform the tar has its files at the top, of several nothing there but their folders.
Source: BuildKit's exporters `local` and `tar` (`platform-split`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from image.tarwriter import END
from model.build import Output
from model.errors import Unsupported
from model.quantity import parse_bool

SPLIT = "platform-split"
Tree = Callable[[], AsyncIterator[bytes]]


def folders(output: Output, platforms: Sequence[str]) -> tuple[str, ...]:
    """In which folder of the output each platform's files are; empty: at its top. Raises InvalidInput,
    Unsupported."""
    said = output.options.get(SPLIT, "")
    split = parse_bool(said, f"--output: {SPLIT}") if said else len(platforms) > 1
    if len(platforms) > 1 and not split:
        raise Unsupported(
            "files of several platforms are not mixed in one folder",
            hint=f"Leave out {SPLIT}=false, or build one platform at a time",
        )
    return tuple(one.replace("/", "_") if split else "" for one in platforms)


async def joined(trees: Iterable[Tree]) -> AsyncIterator[bytes]:
    """Tars as one, each begun once the one before has ended."""
    held = b""
    for tree in trees:
        held = b""
        async for piece in tree():
            whole = held + piece
            held = whole[-len(END) :]
            if len(whole) > len(END):
                yield whole[: -len(END)]
    yield held
