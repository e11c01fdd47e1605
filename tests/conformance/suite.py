"""Suites that others wrote: fetched from their index at test time, run on a host, judged by a table.

Invariant: nothing of a suite is kept in the tree but names of its cases; each that isn't passed stands in the
suite's table (`expected/*.toml`) with its reason, and one that stands there without need fails as well.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CACHE = Path(os.environ.get("FLOTA_CONFORMANCE_CACHE", "/var/cache/flota-conformance"))
"""Environments and sources, kept from run to run."""
EXPECTED = Path(__file__).with_name("expected")
PASSED = "passed"
FETCH = 600.0


@dataclass(frozen=True)
class Suite:
    """`packages` are pip's words, pinned; `sdist` is where the tests are, if in no wheel (`name==version`).
    `name` is that of its table."""

    name: str
    packages: tuple[str, ...]
    sdist: str = ""

    @property
    def _folder(self) -> Path:
        key = hashlib.sha256("\n".join((sys.version, self.sdist, *self.packages)).encode()).hexdigest()[:12]
        return CACHE / f"{self.name}-{key}"

    def fetched(self) -> Path:
        """A folder with `bin`, the environment's programs, and `source`, the sdist's content."""
        folder, fresh = self._folder, self._folder.with_suffix(".new")
        if folder.exists():
            return folder
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        try:
            pip = [str(folder / "bin/python"), "-m", "pip"]
            _run([*pip, "install", "--quiet", "--disable-pip-version-check", *self.packages])
            if self.sdist:
                download = [*pip, "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
                _run([*download, "-d", str(fresh), self.sdist])
                _unpack(next(fresh.glob("*.tar.gz")), folder / "source")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return folder


def _run(words: Sequence[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=FETCH, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"


def _unpack(archive: Path, target: Path) -> None:
    """Without the one folder that all of an sdist is in."""
    aside = target.with_suffix(".aside")
    with tarfile.open(archive) as opened:
        opened.extractall(aside, filter="data")
    (only,) = aside.iterdir()
    only.rename(target)
    aside.rmdir()


@dataclass(frozen=True)
class Expected:
    """Why cases aren't passed, by case. A case's name has its module, class and parameters, as JUnit's."""

    reasons: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, name: str) -> Expected:
        """Of `expected/NAME.toml`: tables `[[unmet]]`, each a `reason` and its `cases`."""
        told = tomllib.loads((EXPECTED / f"{name}.toml").read_text())
        pairs = [(case, group["reason"]) for group in told.get("unmet", ()) for case in group["cases"]]
        twice = sorted({case for case, _ in pairs if [c for c, _ in pairs].count(case) > 1})
        assert not twice, f"{name}.toml names twice: {twice}"
        return cls(dict(pairs))


@dataclass(frozen=True)
class Verdict:
    """How a case ended (`passed`, `failed`, `error`, `skipped`), and what it said."""

    outcome: str
    words: str = ""


def verdicts(report: str) -> dict[str, Verdict]:
    """Of a JUnit report (XML). A case told twice (its own end, its tear-down's) has the worse."""
    found: dict[str, Verdict] = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        name = f"{case.get('classname', '')}.{case.get('name', '')}"
        verdict = Verdict(PASSED)
        for kind, outcome in (("skipped", "skipped"), ("failure", "failed"), ("error", "error")):
            if (told := case.find(kind)) is not None:
                verdict = Verdict(outcome, told.get("message") or told.text or "")
        if found.get(name, verdict).outcome == PASSED or verdict.outcome != PASSED:
            found[name] = verdict
    return found


def violations(found: Mapping[str, Verdict], expected: Expected) -> list[str]:
    """What the table does not say of the cases, and what it says though it isn't so: a line each."""
    lines = [
        f"{verdict.outcome}, and not listed: {case}: {' '.join(verdict.words.split())[:300]}"
        for case, verdict in found.items()
        if verdict.outcome != PASSED and case not in expected.reasons
    ]
    for case, reason in expected.reasons.items():
        if case not in found:
            lines.append(f"listed, but there is no such case: {case}")
        elif found[case].outcome == PASSED:
            lines.append(f"passed, though listed ({reason}): {case}")
    return sorted(lines)


def count(found: Mapping[str, Verdict], outcome: str = PASSED) -> int:
    return sum(verdict.outcome == outcome for verdict in found.values())
