"""What a host lacks of programs, and the commands that bring it: facts and `deploy.families` to a value.
Pure.

What was installed for flota is written down on the host, so that it can be told from what was there before.
"""

from __future__ import annotations

from collections.abc import Sequence

from deploy import families
from deploy.findings import PYTHON, Finding, fatal, warning
from deploy.hostfacts import Facts
from deploy.steps import ROOT, Software

RECORD = f"{ROOT}/packages"
LOG = "/run/flota-packages.log"
INSTALL = """record=$1 packages=$2 log=$3
shift 3
command -v setsid >/dev/null && set -- setsid "$@"
"$@" </dev/null >"$log" 2>&1 || { code=$?; tail -n 20 "$log" >&2; exit $code; }
mkdir -p "$(dirname "$record")" || exit
for package in $packages; do
  grep -qxF "$package" "$record" 2>/dev/null || echo "$package" >>"$record"
done"""
"""Nothing of it hangs on our connection or process group: a package manager that is cut leaves a host that
nobody can use."""
LOCK_WAIT = ("-o", "DPkg::Lock::Timeout=300")
"""A machine that has just booted may be upgrading itself."""
_REMOVAL = {
    families.DEBIAN: ("dpkg", "--remove", "--"),
    families.FEDORA: ("rpm", "-e", "--"),
    families.RHEL: ("rpm", "-e", "--"),
    families.ALPINE: ("apk", "del", "--"),
}
"""They refuse what somebody else's package needs by now; apt-get and dnf would take that along."""

PROOFS = (families.PROGRAMS, families.FILES)
"""Programs and files that the probe is to look for."""


def needed(facts: Facts) -> Software:
    """What is to be installed; findings for what no package brings."""
    family = families.family_of(facts.os_id, facts.os_like)
    lacking = families.missing(facts.programs, facts.files, facts.features)
    without_python = facts.python(PYTHON) is None
    supply = families.supply(family, facts.os_version, lacking, python=without_python)
    prefix = ("env", *(f"{key}={value}" for key, value in supply.environment.items()))
    commands = [
        (*(prefix if supply.environment else ()), command[0], *_waits(command), *command[1:])
        for command in supply.commands
    ]
    return Software(
        packages=supply.packages,
        commands=tuple(commands),
        brings_python=without_python and families.PYTHON not in supply.lacks,
        findings=_lacks(facts, supply),
    )


def _waits(command: Sequence[str]) -> tuple[str, ...]:
    return LOCK_WAIT if command[0] == "apt-get" else ()


def _lacks(facts: Facts, supply: families.Supply) -> tuple[Finding, ...]:
    """Of Python `deploy.steps` tells."""
    lacks = [need for need in supply.lacks if need != families.PYTHON]
    found = []
    where = facts.os_name or "its distribution"
    for need in lacks:
        make = fatal if need.fatal else warning
        hint = f"{where} has no package of it that we know of: install it by hand"
        found.append(make(f"it lacks {need.name}, which {need.why}", hint))
    return tuple(found)


def recorded_by(command: Sequence[str], packages: Sequence[str]) -> tuple[str, ...]:
    """The command that installs them, and writes them down."""
    return ("sh", "-c", INSTALL, "sh", RECORD, " ".join(packages), LOG, *command)


def recorded(said: str) -> tuple[str, ...]:
    """What the record says."""
    return tuple(line for line in said.splitlines()[:100] if line.isprintable() and line.strip())


def removal(facts: Facts, packages: Sequence[str]) -> tuple[str, ...]:
    """The command that takes packages away; empty: nobody knows."""
    family = families.family_of(facts.os_id, facts.os_like)
    words = _REMOVAL.get(family.name, ()) if family is not None else ()
    return (*words, *packages) if words else ()
