"""aiodocker's own tests (Apache-2.0, from its sdist), against the fleet's Docker socket.

What it does in a Docker of its own, in Docker, is done in the fleet: `inswarm`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.conformance import inswarm, programs, seeds
from tests.conformance.conftest import Ground, ground
from tests.conformance.suite import Expected, Suite, verdicts, violations

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800)]
SUITE = Suite(
    "aiodocker",
    (
        "aiodocker==0.27.0",
        "aiohttp==3.13.5",
        "async-timeout==5.0.1",
        "asyncssh==2.22.0",
        "packaging==26.1",
        "paramiko==4.0.0",
        "pytest==9.0.3",
        "pytest-asyncio==1.3.0",
        "pytest-timeout==2.4.0",
        "testcontainers==4.14.2",
    ),
    sdist="aiodocker==0.27.0",
)
PYTHONS = ("python:latest", "python:3.13-alpine", "python:3.14-alpine")


@pytest.fixture(scope="module")
def equipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """One host with the images that the suite uses."""
    wanted = (*seeds.SMALL, *map(programs.python, PYTHONS), programs.registry("registry:2"))
    with ground(tmp_path_factory.mktemp("equipped"), 1, wanted) as made:
        yield made


def test_aiodocker_on_one_host_passes_what_its_table_says(equipped: Ground) -> None:
    folder = SUITE.fetched()
    report = equipped.folder / "aiodocker.xml"
    source = equipped.folder / "aiodocker"
    shutil.copytree(folder / "source", source)  # tests write into it
    words = [str(folder / "bin/python"), "-m", "pytest", "tests", "-q", "--timeout=60", "-o", "addopts="]
    plugin, env = inswarm.laid(equipped.folder / "plugins")
    words += ["-p", "no:cacheprovider", *plugin, f"--junitxml={report}"]
    env["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    done = equipped.run(words, cwd=source, timeout=1500, env=env)
    assert report.exists(), done.stdout + done.stderr
    found = verdicts(report.read_text())
    assert not (lines := violations(found, Expected.read(SUITE.name))), "\n".join(lines)
