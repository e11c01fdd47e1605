"""One name against one part of a pattern of COPY. Pure.

Invariant: whatever Go's filepath.Match says fits, fits; what does not need not be told apart exactly, as
files that are asked for in vain only travel in vain.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_MAGIC = re.compile(rb"[*?\[\\]")


class Pattern(NamedTuple):
    head: bytes
    """What stands before the first sign that is not meant literally."""
    magic: bool
    deep: bool = False
    """`**`."""

    def fits(self, name: bytes) -> bool:
        return name.startswith(self.head) if self.magic else name == self.head


def pattern_of(part: bytes) -> Pattern:
    found = _MAGIC.search(part)
    if found is None:
        return Pattern(part, magic=False)
    return Pattern(part[: found.start()], magic=True, deep=part == b"**")
