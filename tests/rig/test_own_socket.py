"""The stock docker command against a host's own socket: with the controller dead, over agents, to nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.dockercommand import Docker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
WHERE = "n2"


@pytest.fixture
def docker(clean: Fleet) -> Iterator[Docker]:
    made = Docker(clean, WHERE, "host-docker.sock")
    yield made
    with contextlib.suppress(subprocess.TimeoutExpired):
        left = made.attempt("ps", "-aq", "--filter", "label=own").stdout.decode().split()
        if left:
            made.attempt("rm", "-f", "-v", *left)


@contextlib.contextmanager
def no_controller(fleet: Fleet) -> Iterator[None]:
    os.kill(fleet.pid("n1", "controller"), signal.SIGKILL)
    try:
        yield
    finally:
        fleet.flota("n1", "controller", "--detach")
        fleet.wait_ready(len(fleet.rig.hosts))


OWN = ("--label", "own")


def test_own_container_lives_a_whole_life_while_the_controller_is_dead(docker: Docker, clean: Fleet) -> None:
    with no_controller(clean):
        assert docker("run", "--rm", *OWN, IMAGE, "echo", "hello") == "hello"
        assert docker.attempt("run", "--rm", *OWN, IMAGE, "sh", "-c", "exit 7").returncode == 7
        assert docker("run", "--rm", "-i", *OWN, IMAGE, "cat", stdin=b"piped") == "piped"
        docker("run", "-d", "--name", "box", *OWN, "-v", "kept:/data", IMAGE, "sleep", "1000")
        assert docker("exec", "box", "sh", "-c", "echo said >/data/x; cat /data/x") == "said"
        assert "sleep 1000" in docker("top", "box")
        docker("pause", "box")
        docker("unpause", "box")
        docker("rename", "box", "crate")
        docker("stop", "-t", "0", "crate")
        docker("start", "crate")
        assert docker("exec", "crate", "cat", "/data/x") == "said"
        assert {"bridge", "host", "none"} <= {*docker("network", "ls", "--format", "{{.Name}}").split()}
        docker("rm", "-f", "crate")
        docker("volume", "rm", "kept")
        assert docker("ps", "-aq") == ""


def test_own_container_has_an_address_on_the_bridge_and_an_open_port(docker: Docker, clean: Fleet) -> None:
    serve = ("sh", "-c", "echo ok >/www/index.html; exec httpd -f -p 80 -h /www")
    with no_controller(clean):
        docker("run", "-d", "--name", "web", *OWN, "-p", "18080:80", IMAGE, *serve)
        address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web")

        def answers() -> bool:
            done = docker.attempt("run", "--rm", *OWN, IMAGE, "wget", "-qO-", f"http://{address}/")
            return done.stdout == b"ok\n"

        wait_until(answers, deadline=30, what="an answer at its address")
        own = next(host.address for host in clean.rig.hosts if host.name == WHERE)
        ask = ["wget", "-qO-", f"http://{own}:18080/"]
        wait_until(
            lambda: clean.rig.exec("n1", ask, check=False).stdout == b"ok\n",
            deadline=30,
            what="an answer at its port",
        )


def test_own_container_goes_on_over_a_killed_agent_and_knows_its_policy(docker: Docker, clean: Fleet) -> None:
    docker("run", "-d", "--name", "box", *OWN, "--restart", "always", IMAGE, "sleep", "1000")
    pid = docker("inspect", "-f", "{{.State.Pid}}", "box")
    with no_controller(clean):
        os.kill(clean.pid(WHERE, "agent"), signal.SIGKILL)
        clean.flota(WHERE, "agent", "--detach")
        wait_until(lambda: docker.attempt("ps", "-q").returncode == 0, deadline=30, what="its socket")
        assert docker("inspect", "-f", "{{.State.Pid}}", "box") == pid
        clean.rig.exec(WHERE, ["kill", "-9", pid])
        wait_until(
            lambda: docker("inspect", "-f", "{{.RestartCount}} {{.State.Running}}", "box") == "1 true",
            deadline=30,
            what="its restart",
        )
    assert docker("inspect", "-f", "{{.State.Running}}", "box") == "true", "no View takes it away"


def test_container_of_the_fleet_is_seen_and_not_changed_by_its_host(docker: Docker, clean: Fleet) -> None:
    clean.flota("n1", "run", "-d", "--name", "theirs", "--node", WHERE, IMAGE, "sleep", "1000")
    wait_until(lambda: "theirs" in docker("ps", "--format", "{{.Names}}"), deadline=20, what="it is listed")
    assert docker("exec", "theirs", "echo", "in") == "in"
    done = docker.attempt("rm", "-f", "theirs")
    assert done.returncode and b"belongs to the fleet" in done.stderr
    done = docker.attempt("create", "--name", "theirs", *OWN, IMAGE, "true")
    assert done.returncode and b"already in use" in done.stderr


def test_own_container_is_shown_and_changed_by_the_fleet_that_is_back(docker: Docker, clean: Fleet) -> None:
    with no_controller(clean):
        ident = docker("run", "-d", "--name", "box", *OWN, IMAGE, "sleep", "1000")
    wait_until(lambda: "(own)" in clean.flota("n1", "ps"), deadline=30, what="it is shown")
    assert clean.flota("n1", "exec", "box", "echo", "in").strip() == "in"
    clean.flota("n1", "stop", "-t", "0", "box")
    assert docker("inspect", "-f", "{{.State.Status}}", "box") == "exited"
    clean.flota("n1", "rename", "box", "crate")
    assert docker("ps", "-aq", "--no-trunc", "--filter", "name=crate") == ident
    taken = clean.attempt("n1", "create", "--name", "crate", IMAGE)
    assert taken.returncode and b"own socket" in taken.stderr
    clean.flota("n1", "rm", "crate")
    assert docker("ps", "-aq", "--filter", "label=own") == ""
