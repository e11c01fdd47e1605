"""docker-py's own integration tests (Apache-2.0, from its sdist), against the fleet's Docker socket."""

from __future__ import annotations

import shutil

import pytest

from tests.conformance import inswarm
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


SWARM = ("config", "node", "secret", "service", "swarm")
"""Words in the names of the files whose cases make a swarm."""


def test_docker_py_in_a_swarm_that_stays_passes_what_its_table_says(alone: Ground) -> None:
    """What the suite does in a swarm that it makes for each case, in the fleet, which is one."""
    folder = SUITE.fetched()
    report = alone.folder / "docker-py-swarm.xml"
    source = alone.folder / "docker-py-swarm"
    shutil.copytree(folder / "source", source)
    files = sorted(str(path.relative_to(source)) for path in (source / "tests/integration").glob("*_test.py"))
    chosen = [path for path in files if any(word in path for word in SWARM)]
    plugin, env = inswarm.laid(alone.folder / "plugins")
    words = [str(folder / "bin/python"), "-m", "pytest", *chosen, "-q", "--timeout=60"]
    words += ["-p", "no:cacheprovider", *plugin, f"--junitxml={report}"]
    env["DOCKER_TEST_API_VERSION"] = "1.43"
    done = alone.run(words, cwd=source, timeout=900, env=env)
    assert report.exists(), done.stdout + done.stderr
    found = verdicts(report.read_text())
    assert not (lines := violations(found, Expected.read("docker-py-swarm"))), "\n".join(lines)
