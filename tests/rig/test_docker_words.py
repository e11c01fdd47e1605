"""The stock docker command and what old compose files say: links, log drivers, sizes, ignored Dockerfiles."""

from __future__ import annotations

import pytest

from tests.rig.conftest import IMAGE
from tests.rig.dockercommand import Docker
from tests.support.images import member, tar
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig


def test_link_is_a_name_for_its_container_alone_wherever_the_other_runs(docker: Docker) -> None:
    docker("network", "create", "mine")
    near = ["--network", "mine", "--label", "flota.node=n1"]
    docker("run", "-d", "--name", "web", *near, "--link", "base:db", IMAGE, "sleep", "1000")
    docker("run", "-d", "--name", "other", *near, IMAGE, "sleep", "1000")
    seen = docker.inspect("web")["NetworkSettings"]["Networks"]["mine"]["Links"]
    assert seen == ["base:db"]
    docker(
        "run", "-d", "--name", "base", "--network", "mine", "--label", "flota.node=n2", IMAGE, "sleep", "1000"
    )
    address = docker.inspect("base")["NetworkSettings"]["Networks"]["mine"]["IPAddress"]

    def found(who: str) -> bool:
        return address in docker.attempt("exec", who, "nslookup", "db").stdout.decode()

    wait_until(lambda: found("web"), deadline=20, what="the link leads to the one that came later")
    assert not found("other")
    docker("rm", "-f", "web", "other", "base")
    docker("network", "rm", "mine")


def test_container_without_a_log_is_heard_by_who_attaches(docker: Docker) -> None:
    assert docker("run", "--rm", "--log-driver", "none", IMAGE, "echo", "heard") == "heard"
    docker("run", "-d", "--name", "quiet", "--log-driver", "none", IMAGE, "sh", "-c", "echo lost; sleep 1000")
    refused = docker.attempt("logs", "quiet")
    assert refused.returncode == 1
    assert b"configured logging driver does not support reading" in refused.stderr
    docker("rm", "-f", "quiet")


def test_sizes_are_what_containers_wrote_and_a_prune_tells_them(docker: Docker) -> None:
    script = "dd if=/dev/zero of=/data bs=1M count=3 2>/dev/null"
    docker("run", "--name", "wrote", IMAGE, "sh", "-c", script)
    size = docker("ps", "-as", "--no-trunc", "--format", "{{.Size}}")
    assert size.startswith("3.1"), size
    told = docker("container", "prune", "-f")
    assert "Total reclaimed space: 3.1" in told, told


def test_restarting_container_is_not_removed_without_force(docker: Docker) -> None:
    docker("run", "-d", "--name", "again", "--restart", "always", IMAGE, "sleep", "0.2")
    for _ in range(20):
        done = docker.attempt("rm", "again")
        assert done.returncode == 1, done.stdout
        assert b"before removing or force remove" in done.stderr
    docker("rm", "-f", "again")


def test_dockerfile_that_is_ignored_is_no_part_of_the_image(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    context = tar(
        member("Dockerfile", f"FROM {IMAGE}\nCOPY . /there\nRUN ls -A /there\n".encode()),
        member(".dockerignore", b"Dockerfile\n.dockerignore\n"),
        member("kept", b"x"),
    )
    docker("build", "-q", "-t", "ignoring:1", "-", stdin=context)
    assert docker("run", "--rm", "ignoring:1", "ls", "-A", "/there") == "kept"
    ident = docker("run", "-d", "ignoring:1", "sh", "-c", "touch /more; sleep 1000")
    docker("commit", ident, "made:1")
    assert docker.inspect("made:1")["Parent"] == docker.inspect("ignoring:1")["Id"]
    docker("rm", "-f", ident)
    docker("rmi", "made:1", "ignoring:1")
