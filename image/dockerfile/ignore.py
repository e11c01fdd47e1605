""".dockerignore: which files of a context are left out, exactly as Docker reads it. Pure.

Source: the reference's section on it, and moby's `ignorefile`. The Dockerfile and the ignore file are like
any other: whether they are left out of what COPY sees is the patterns' question alone; the build has them by
another way. Invariant: a file that is refused names its line.
"""

from __future__ import annotations

from image.dockerfile.patterns import Folder, Patterns
from model.ignorefile import DEFAULT, patterns_of


class Ignore:
    """Walk with `root`: `enter` a folder, ask `matches` of everything else. A folder that is `matched` and
    `settled` is skipped whole; one that is only `matched` may hold what a `!` takes back, and comes along if
    it does."""

    def __init__(self, patterns: Patterns) -> None:
        self.patterns = patterns

    @property
    def root(self) -> Folder:
        return self.patterns.root

    @classmethod
    def parse(cls, text: bytes, *, file: str = DEFAULT) -> Ignore:
        """Raises InvalidInput."""
        found = patterns_of(text, file)
        lines = [number for number, _ in found]
        return cls(Patterns([one for _, one in found], where=lambda n: f"{file}:{lines[n - 1]}"))

    def excludes(self, path: str) -> bool:
        """Of one path by itself, as `a/b`."""
        return self.patterns.matches(path)
