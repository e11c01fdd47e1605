"""Networks, volumes and services by the stock docker command over three hosts: they are the fleet's own."""

# ruff: noqa: E501 - command lines

from __future__ import annotations

import json
import re

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.dockercommand import Docker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
SERVE = "trap 'exit 0' TERM; mkdir -p /www; echo page of $HOSTNAME > /www/index.html; httpd -f -p 80 -h /www & wait"
CREATE = ("service", "create", "--no-resolve-image", "--detach")
SOON = 30
PAGES = ("httpd", "-f", "-p", "80", "-h", "/etc")


def reaches(docker: Docker, source: str, name: str) -> bool:
    """What `name` serves, by its name. (The box's wget can't look names up.)"""
    looked = docker.attempt("exec", source, "nslookup", "-type=a", name).stdout.decode()
    found = re.findall(r"^Address: (\d+\.\d+\.\d+\.\d+)$", looked, re.MULTILINE)
    if not found:
        return False
    page = ("wget", "-qO-", f"http://{found[0]}/hosts")
    return docker.attempt("exec", source, *page).returncode == 0


def test_containers_of_a_docker_network_know_each_other_over_hosts(docker: Docker) -> None:
    docker("network", "create", "front")
    docker("run", "-d", "--name", "one", "--network", "front", "--label", "flota.node=n1", IMAGE, *PAGES)
    docker("run", "-d", "--name", "two", "--network", "front", "--label", "flota.node=n3", IMAGE, *PAGES)
    wait_until(lambda: reaches(docker, "one", "two"), deadline=10, what="two over there")
    seen = json.loads(docker("network", "inspect", "front"))[0]
    assert {c["Name"] for c in seen["Containers"].values()} == {"one", "two"}
    assert {peer["Name"] for peer in seen["Peers"]} >= {"n1", "n3"}
    docker("run", "-d", "--name", "late", "--label", "flota.node=n2", IMAGE, *PAGES)
    docker("network", "connect", "--alias", "friend", "front", "late")
    wait_until(lambda: reaches(docker, "one", "friend"), deadline=10, what="its other name")
    docker("network", "disconnect", "front", "late")
    assert not reaches(docker, "late", "one")
    assert b"has active endpoints" in docker.attempt("network", "rm", "front").stderr
    docker("rm", "-f", "one", "two", "late")
    docker("network", "rm", "front")


def test_volume_keeps_its_data_on_each_host(docker: Docker) -> None:
    docker("volume", "create", "data")
    there = json.loads(docker("volume", "inspect", "data"))[0]["Status"]["nodes"]
    assert sorted(there) == ["n1", "n2", "n3"]
    on_n2 = ("--label", "flota.node=n2", "-v", "data:/d", IMAGE)
    docker("run", "--name", "writer", *on_n2, "sh", "-c", "echo kept > /d/file")
    assert docker("run", "--rm", *on_n2, "cat", "/d/file") == "kept"
    assert b"volume is in use" in docker.attempt("volume", "rm", "data").stderr
    docker("rm", "writer")
    docker("volume", "rm", "data")
    assert "data" not in docker("volume", "ls", "-q").split()


def test_service_of_docker_is_flotas_own_on_three_hosts(docker: Docker, clean: Fleet) -> None:
    docker("network", "create", "-d", "overlay", "back")
    docker(
        *CREATE, "--name", "web", "--replicas", "3", "--network", "back", "--publish", "8099:80",
        "--update-monitor", "1s", IMAGE, "sh", "-c", SERVE,
    )  # fmt: skip
    wait_until(lambda: _replicas(docker) == "3/3", deadline=SOON, what="three replicas")
    assert {row.split()[1] for row in _tasks(docker)} == {"n1", "n2", "n3"}
    assert [s["service"]["spec"]["name"] for s in clean.json("service", "ls")] == ["web"]
    docker("run", "-d", "--name", "asker", "--network", "back", IMAGE, "sleep", "1000")
    assert docker("exec", "asker", "wget", "-qO-", "http://web/").startswith("page of")
    assert docker("service", "update", "--no-resolve-image", "--env-add", "V=2", "web")
    wait_until(lambda: _replicas(docker) == "3/3", deadline=SOON, what="the new tasks")
    clean.flota("n1", "service", "scale", "web=1")
    wait_until(lambda: _replicas(docker) == "1/1", deadline=SOON, what="one replica")
    docker("service", "rollback", "--detach", "web")
    lines = docker("service", "logs", "web")
    assert "web.1" in lines or lines == ""
    docker("service", "rm", "web")
    assert docker("service", "ls", "-q") == ""


def test_drained_node_is_left_by_tasks(docker: Docker) -> None:
    docker(*CREATE, "--name", "web", "--replicas", "3", IMAGE, "sleep", "1000")
    wait_until(lambda: _replicas(docker) == "3/3", deadline=SOON, what="three replicas")
    docker("node", "update", "--availability", "drain", "n2")
    try:
        wait_until(
            lambda: {row.split()[1] for row in _tasks(docker)} == {"n1", "n3"}, deadline=SOON, what="the move"
        )
    finally:
        docker("node", "update", "--availability", "active", "n2")
    docker("service", "rm", "web")


def _replicas(docker: Docker) -> str:
    return docker("service", "ls", "-f", "name=web", "--format", "{{.Replicas}}")


def _tasks(docker: Docker) -> list[str]:
    """`web.1 n2`, of those that are to run."""
    words = ("service", "ps", "-f", "desired-state=running", "--format", "{{.Name}} {{.Node}}", "web")
    return docker(*words).splitlines()
