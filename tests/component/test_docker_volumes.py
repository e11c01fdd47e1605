"""Volumes and services' logs by the stock docker command, against a fleet whose hosts answer in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model.status import VolumeReport
from tests.support.serveddocker import ServedDocker, served_docker
from tests.support.waiting import wait_until


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[ServedDocker]:
    with served_docker(tmp_path) as made:
        yield made


def having(docker: ServedDocker, name: str) -> list[str]:
    return [host.name for host in docker.fleet.hosts.values() if name in host.volumes]


def test_volume_is_made_on_every_host_and_shown_as_one(docker: ServedDocker) -> None:
    assert docker("volume", "create", "--label", "a=b", "data") == "data"
    assert having(docker, "data") == ["n1", "n2", "n3"]
    assert docker("volume", "ls", "-q") == "data"
    seen = docker.inspect("volume", "data")
    assert seen["Labels"] == {"a": "b"} and seen["Status"] == {"nodes": ["n1", "n2", "n3"]}
    assert (seen["Driver"], seen["Scope"], seen["Mountpoint"]) == ("local", "local", "/v/data")
    assert docker("volume", "create", "data") == "data"
    docker("volume", "rm", "data")
    assert having(docker, "data") == []


def test_volume_is_made_on_the_host_that_a_label_names(docker: ServedDocker) -> None:
    docker("volume", "create", "--label", "flota.node=n2", "there")
    assert having(docker, "there") == ["n2"]
    assert docker.inspect("volume", "there")["Status"] == {"nodes": ["n2"]}
    docker("volume", "rm", "there")


def test_volumes_are_found_by_every_filter_of_docker(docker: ServedDocker) -> None:
    docker("volume", "create", "--label", "tier=db", "data")
    docker("volume", "create", "--label", "flota.node=n3", "logs")
    wanted = {
        "name=dat": "data",
        "label=tier": "data",
        "label=tier=db": "data",
        "driver=local": "data logs",
        "driver=nfs": "",
        "node=n2": "data",
        "dangling=true": "data logs",
        "dangling=false": "",
    }
    for wish, names in wanted.items():
        assert docker("volume", "ls", "-q", "-f", wish).split() == names.split(), wish
    assert "invalid filter 'colour'" in docker.refusal("volume", "ls", "-f", "colour=red")


def test_prune_takes_what_nobody_uses_and_labels_choose(docker: ServedDocker) -> None:
    docker("volume", "create", "--label", "keep=1", "kept")
    docker("volume", "create", "loose")
    gone = docker("volume", "prune", "-f", "--filter", "label!=keep")
    assert gone.splitlines()[:2] == ["Deleted Volumes:", "loose"]
    assert docker("volume", "ls", "-q") == "kept"


def test_prune_of_newer_clients_spares_volumes_that_have_a_name(docker: ServedDocker) -> None:
    docker("volume", "create", "named")
    host = next(iter(docker.fleet.hosts.values()))
    host.volumes["f" * 64] = VolumeReport(name="f" * 64, anonymous=True)
    listed = docker("volume", "ls", "-q", "-f", "label=com.docker.volume.anonymous")
    assert listed == "f" * 64
    reply = docker.http("POST", "/v1.42/volumes/prune")
    assert reply == {"VolumesDeleted": ["f" * 64], "SpaceReclaimed": 0}
    reply = docker.http("POST", "/v1.42/volumes/prune", filters='{"all":["true"]}')
    assert reply["VolumesDeleted"] == ["named"]


def test_mistakes_with_volumes_are_told_in_dockers_words(docker: ServedDocker) -> None:
    assert "No such volume: nobody" in docker.refusal("volume", "inspect", "nobody")
    assert "No such volume: nobody" in docker.refusal("volume", "rm", "nobody")
    docker("volume", "rm", "-f", "nobody")
    assert 'plugin "nfs" not found' in docker.refusal("volume", "create", "-d", "nfs", "x")
    refused = docker.refusal("volume", "create", "-o", "type=tmpfs", "x")
    assert "DriverOpts: is not supported" in refused
    assert docker("volume", "ls", "-q") == ""


def test_logs_of_a_service_name_the_task_that_says_each_line(docker: ServedDocker) -> None:
    docker(
        "service", "create", "--no-resolve-image", "-d", "--name", "web", "--replicas", "2", "-p", "80:80",
        "box:1", "sh", "-c", "echo hello; err oh; sleep 9",
    )  # fmt: skip
    wait_until(lambda: docker("service", "logs", "web").count("hello") == 2, deadline=10, what="their words")
    lines = sorted(docker("service", "logs", "web").splitlines())
    assert [line.partition(".")[0] for line in lines] == ["web", "web"]
    assert lines[0].startswith("web.1.") and lines[0].endswith("| hello") and "@n" in lines[0]
    assert docker.attempt("service", "logs", "--raw", "web").stderr.splitlines() == ["oh", "oh"]
    task = docker("service", "ps", "-q", "--no-trunc", "-f", "name=web.2", "web")
    assert docker("service", "logs", "--raw", task).splitlines() == ["hello"]
    assert "no such task or service: nobody" in docker.refusal("service", "logs", "nobody")
