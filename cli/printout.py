"""What programs printed, as a terminal may have it.

Invariant: nothing is shown that makes a terminal do or answer anything; colours, which programs print on
purpose, are kept.
"""

from __future__ import annotations

import codecs
import re

_SHOWN = re.compile(r"\x1b\[[\d;:]*m|[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+", re.ASCII)
"""Text with its line ends and tabs, and colours (SGR, ECMA-48 8.3.117): programs print them on purpose."""
_UNFINISHED = re.compile(r"\x1b(?:\[[\d;:]{0,60})?\Z", re.ASCII)


class Printout:
    """What a program printed, piece by piece, as a terminal may have it: of controls only colours are left.
    Pieces may end within a character, or within a colour."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def shown(self, data: bytes) -> str:
        text = self._held + self._decoder.decode(data)
        unfinished = _UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else ""
        return "".join(_SHOWN.findall(text.removesuffix(self._held)))
