"""docs/build-differences.md, of the cases: where builders disagree, and which rules only the reference tells.

`python -m tests.differential.opinions >docs/build-differences.md`
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tests.differential.case import ALL, Case
from tests.differential.table import CASES

HEAD = """\
# Builds: where builders disagree

Written by `python -m tests.differential.opinions`; a test holds it to the cases. Each rule of the Dockerfile
reference is a case that Docker Engine 20.10 (its classic builder, and BuildKit) and buildah 1.28 build beside
flota: {count} cases, of {agreed} of which nobody thinks otherwise. The configuration must be equal, and every
file's kind, mode, owner, content, link, attributes and, where it is defined, time. flota is with those that
agree; where none does, with the reference and BuildKit of today.

| rule | classic | BuildKit | buildah |
|---|---|---|---|
"""
ALONE = """
## Rules that none of the three knows
They are newer; what flota makes is compared with what the reference says.

"""


def document(cases: Iterable[Case]) -> str:
    every = list(cases)
    disputed = [case for case in every if case.dissent]
    rows = dict.fromkeys(
        f"| {case.name}: {_cell(case.rule)} | {' | '.join(_opinion(case, builder) for builder in ALL)} |\n"
        for case in disputed
    )
    alone = dict.fromkeys(f"- {case.name}: {case.rule}\n" for case in every if not case.knows)
    head = HEAD.format(count=len(every), agreed=len(every) - len(disputed))
    return "".join((head, *rows, ALONE, *alone))


def _opinion(case: Case, builder: str) -> str:
    if builder not in case.knows:
        return "–"
    return _cell(case.dissent.get(builder, "as flota"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(document(CASES))
