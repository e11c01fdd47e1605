"""Tests in Go that Debian packages as source: compiled once for each version, read from what they print.

Invariant: nothing is fetched: their dependencies are Debian packages too, found by GOPATH.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.conformance.suite import CACHE, PASSED, Verdict

SOURCES = Path("/usr/share/gocode")
COMPILE = 600.0
_TURN = re.compile(r"^=== (?:RUN|CONT|NAME|PAUSE)\s+(.+)$")
_END = re.compile(r"^\s*--- (PASS|FAIL|SKIP): (.+) \([\d.]+s\)$")
_OUTCOMES = {"PASS": PASSED, "FAIL": "failed", "SKIP": "skipped"}


def compiled(package: str, debian: str, tags: str = "") -> Path:
    """The program of a package's tests. `debian` names the package that brings it."""
    words = ["dpkg-query", "--show", "--showformat=${Version}", debian, "golang-go"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"apt-get install {debian} golang-go: {found.stderr}"
    program = CACHE / f"{debian}-{re.sub(r'[^0-9a-z.]', '-', found.stdout)}.test"
    if program.exists():
        return program
    CACHE.mkdir(parents=True, exist_ok=True)
    fresh = program.with_suffix(".new")
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GOCACHE": str(CACHE / "go-build")}
    env |= {"GO111MODULE": "off", "GOPATH": str(SOURCES), "GOFLAGS": ""}
    done = subprocess.run(
        ["go", "test", "-tags", tags, "-c", "-o", str(fresh), package],
        env=env,
        capture_output=True,
        text=True,
        timeout=COMPILE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    fresh.rename(program)
    return program


def verdicts(printed: str) -> dict[str, Verdict]:
    """Of `-test.v`. A test that only holds others counts by those."""
    said: dict[str, list[str]] = {}
    outcomes: dict[str, str] = {}
    now = ""
    for line in printed.splitlines():
        if found := _TURN.match(line):
            now = found[1]
            outcomes.setdefault(now, "error")  # until its end is told
        elif found := _END.match(line):
            outcomes[found[2]] = _OUTCOMES[found[1]]
            now = found[2]
        else:
            said.setdefault(now, []).append(line)
    holders = {name.rpartition("/")[0] for name in outcomes}
    return {
        name: Verdict(outcome, "" if outcome == PASSED else "\n".join(said.get(name, ())))
        for name, outcome in outcomes.items()
        if name not in holders
    }
