"""docker-py's own integration tests (Apache-2.0, from its sdist), against the fleet's Docker socket."""

from __future__ import annotations

import shutil

import pytest

from tests.conformance.conftest import Ground
from tests.conformance.suite import Expected, Suite, verdicts, violations

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800)]
SUITE = Suite(
    "docker-py",
    (
        "docker==7.0.0",
        "requests==2.31.0",
        "websocket-client==1.9.0",
        "paramiko==3.5.1",
        "pytest==7.4.2",
        "pytest-timeout==2.1.0",
    ),
    sdist="docker==7.0.0",
)


def test_docker_py_on_one_host_passes_what_its_table_says(alone: Ground) -> None:
    folder = SUITE.fetched()
    report = alone.folder / "docker-py.xml"
    source = alone.folder / "docker-py"
    shutil.copytree(folder / "source", source)  # tests write into it
    words = [str(folder / "bin/python"), "-m", "pytest", "tests/integration", "-q", "--timeout=60"]
    words += ["-p", "no:cacheprovider", f"--junitxml={report}"]
    done = alone.run(words, cwd=source, timeout=1500, env={"DOCKER_TEST_API_VERSION": "1.43"})
    assert report.exists(), done.stdout + done.stderr
    found = verdicts(report.read_text())
    assert not (lines := violations(found, Expected.read(SUITE.name))), "\n".join(lines)
