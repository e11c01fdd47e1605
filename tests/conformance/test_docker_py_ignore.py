"""docker-py's tables of ignore files (its unit tests) put to flota's own matcher; no fleet is needed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conformance.suite import Expected, Suite, verdicts, violations

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).parents[2]
SUITE = Suite(
    "docker-py-ignore",
    ("docker==7.0.0", "requests==2.31.0", "paramiko==3.5.1", "pytest==7.4.2", "msgspec==0.20.0"),
    sdist="docker==7.0.0",
)


def test_tables_of_ignore_files_are_answered_as_the_table_says(tmp_path: Path) -> None:
    folder, report = SUITE.fetched(), tmp_path / "report.xml"
    words = [str(folder / "bin/python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "ignoring"]
    words += ["-k", "ExcludePathsTest", f"--junitxml={report}", "tests/unit/utils_build_test.py"]
    done = subprocess.run(
        words,
        cwd=folder / "source",
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    found = verdicts(report.read_text())
    assert len(found) > 30
    assert not (lines := violations(found, Expected.read(SUITE.name))), "\n".join(lines)
