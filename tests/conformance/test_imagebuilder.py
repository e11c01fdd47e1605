"""imagebuilder's conformance tests (Apache-2.0, a package of Debian's) against the fleet's Docker socket.

Each builds a Dockerfile twice: by `POST /build`, and step by step by a client of its own that creates, copies
into, runs and commits containers. Configuration and files of both have to be the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.conformance import gotests, seeds
from tests.conformance.conftest import Ground, ground
from tests.conformance.suite import Expected, count, violations

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800)]
DEBIAN = "golang-github-openshift-imagebuilder-dev"
PACKAGE = "github.com/openshift/imagebuilder/dockerclient"
LEAST = 106
"""So many does Docker Engine 20.10 pass without an internet."""
SHELL = {"bin/bash": b'#!/bin/sh\nexec /bin/sh "$@"\n'}
ACCOUNTS = {
    "etc/passwd": f"{seeds.ACCOUNTS}lp:x:4:7:lp:/:/bin/false\ndocker:x:1000:0::/:/bin/sh\n".encode(),
    "etc/group": f"{seeds.GROUPS}adm:x:4:\nlp:x:7:\n".encode(),
}
SEEDS = (
    seeds.Seed("busybox:latest", extra=ACCOUNTS),
    seeds.Seed("alpine:latest"),
    seeds.Seed("centos:7", extra=ACCOUNTS, programs=SHELL),
    seeds.Seed("debian:latest"),
    seeds.Seed("ubuntu:latest"),
    seeds.Seed("golang:latest", extra={"go/src/x": b"x"}, config={"Cmd": ["/bin/sh"], "WorkingDir": "/go"}),
    seeds.Seed("golang:1.9", config={"Cmd": ["/bin/sh"], "WorkingDir": "/go"}),
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("imagebuilder"), 1, SEEDS) as made:
        yield made


def test_imagebuilder_passes_what_its_table_says(host: Ground) -> None:
    program = gotests.compiled(PACKAGE, DEBIAN, tags="conformance")
    source = host.folder / "dockerclient"
    shutil.copytree(gotests.SOURCES / "src" / PACKAGE, source)
    words = [str(program), "-test.v", "-test.timeout=25m"]
    done = host.run(words, cwd=source, timeout=1600, env={"DOCKER_HOST": "unix:///run/docker.sock"})
    (host.folder / "printed").write_text(done.stdout + done.stderr)
    found = gotests.verdicts(done.stdout)
    assert not (lines := violations(found, Expected.read("imagebuilder"))), "\n".join(lines)
    assert count(found) >= LEAST
