"""One name against one part of a pattern of COPY. Pure.

Invariant: a part that is malformed fits every name: whoever copies tells of it.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from image.dockerfile.globs import GlobFault, has_wildcards, match


class Pattern(NamedTuple):
    text: str
    magic: bool
    deep: bool = False
    """`**`."""

    def fits(self, name: bytes) -> bool:
        if not self.magic:
            return os.fsencode(self.text) == name
        try:
            return match(self.text, os.fsdecode(name))
        except GlobFault:
            return True


def pattern_of(part: bytes) -> Pattern:
    text = os.fsdecode(part)
    return Pattern(text, magic="\\" in text or has_wildcards(text), deep=text == "**")
