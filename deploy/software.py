"""What a host lacks of programs, and how its distribution brings them.

What was installed for flota is written down on the host, so that it can be told from what was there before.
"""

from __future__ import annotations

from collections.abc import Sequence

from deploy.hostfacts import Facts
from deploy.steps import ROOT, Software
from deploy.transport import Transport

RECORD = f"{ROOT}/packages"
DEADLINE = 30.0
WRITE_DOWN = """set -e
mkdir -p "$(dirname "$1")"
record=$1
shift
for package; do grep -qxF "$package" "$record" 2>/dev/null || echo "$package" >>"$record"; done"""


def proofs() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Programs and files that the probe looks for."""
    return (), ()


def needed(facts: Facts) -> Software:
    return Software()


def written_down(packages: Sequence[str]) -> tuple[str, ...]:
    """The command that does so, once they are installed."""
    return ("sh", "-c", WRITE_DOWN, "sh", RECORD, *packages)


def removal(facts: Facts, packages: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Commands that take packages away."""
    for program, words in (("apt-get", ("remove", "-y")), ("dnf", ("remove", "-y")), ("apk", ("del",))):
        if program in facts.programs:
            return ((program, *words, *packages),)
    return ()


async def installed_by_us(to: Transport) -> tuple[str, ...]:
    done = await to.run(["cat", RECORD], timeout=DEADLINE)
    return tuple(line for line in done.text.splitlines()[:100] if line.isprintable() and line.strip())
