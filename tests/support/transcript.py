"""Console transcripts in documents, as commands with the output that is promised.

A block is fenced as ```console below `<!-- transcript: NAME -->`. Lines after `$ ` are commands; the
lines below them are the output, where `…` stands for anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"<!-- transcript: (\w+) -->\n```console\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Step:
    command: str
    output: tuple[str, ...]

    def fits(self, said: str) -> bool:
        """True when the output is as promised: to the letter, or with `…` in order among the lines said."""
        lines = said.strip().splitlines()
        if not any("…" in line for line in self.output):
            return lines == list(self.output)
        remaining = iter(lines)
        wanted = [".*".join(map(re.escape, line.split("…"))) for line in self.output if line != "…"]
        return all(any(re.fullmatch(pattern, line) for line in remaining) for pattern in wanted)


def steps(document: Path, name: str) -> list[Step]:
    """All steps of the named transcript, in order over its blocks."""
    found: list[Step] = []
    for label, body in _BLOCK.findall(document.read_text()):
        if label == name:
            for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                command, *output = part.rstrip("\n").split("\n")
                found.append(Step(command, tuple(output)))
    return found
