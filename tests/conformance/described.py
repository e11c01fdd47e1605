"""What of public suites is not passed, and why, as a page: `python -m tests.conformance.described PAGE`.

The tables that judge the suites are its only source; a unit test holds the page to them.
"""

from __future__ import annotations

import sys
import tomllib
from itertools import groupby
from pathlib import Path

from tests.conformance.suite import EXPECTED, Expected

PAGE = Path(__file__).parents[2] / "docs" / "docker-conformance.md"
_OPENING = """\
# Public suites against flota's Docker API

Suites that others wrote for Docker run against a fleet's socket as they are.
`sudo deploy/test --tier conformance` fetches each at its pinned version, runs it on a host of a fleet and
compares what it says with the tables below. A case that isn't passed and doesn't stand here fails the run,
and so does one that is passed though it stands here.

Where a suite makes a swarm for each of its cases, it is told that the fleet is the one that it made.

This page is made by `python -m tests.conformance.described docs/docker-conformance.md`.
"""


def page() -> str:
    parts = [_OPENING]
    for table in sorted(EXPECTED.glob("*.toml")):
        reasons = Expected.read(table.stem).reasons
        parts.append(f"## {table.stem}\n")
        if tomllib.loads(table.read_text()).get("unmeasured"):
            parts.append("Not measured yet, but for what is named here.\n")
        elif not reasons:
            parts.append("Every case is passed.\n")
        for reason, group in groupby(reasons, key=lambda case: reasons[case]):
            parts.append(f"{reason}:\n\n" + "".join(f"- `{case}`\n" for case in group))
    return "\n".join(parts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
