"""The stock docker command against a fleet's Docker socket: containers' lives, on any host."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.dockercommand import Docker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig


def test_detached_container_is_run_listed_inspected_stopped_and_removed(docker: Docker, clean: Fleet) -> None:
    ident = docker(
        "run", "-d", "--name", "web", "-l", "com.docker.compose.project=p", "-e", "A=b", "-m", "64m",
        "--restart", "unless-stopped", IMAGE, "sh", "-c", "echo out; echo err >&2; sleep 1000",
    )  # fmt: skip
    assert docker("ps", "--format", "{{.Names}} {{.Image}} {{.State}}") == f"web {IMAGE} running"
    assert docker("ps", "-q", "--no-trunc", "-f", "label=com.docker.compose.project=p") == ident
    host = docker("ps", "--format", '{{.Label "flota.node"}}')
    assert host in ("n1", "n2", "n3")
    seen = docker.inspect("web")
    assert seen["State"]["Running"] and seen["Name"] == "/web" and seen["Node"]["Name"] == host
    assert seen["Config"]["Labels"] == {"com.docker.compose.project": "p"}
    assert "A=b" in seen["Config"]["Env"] and seen["HostConfig"]["Memory"] == 64 << 20
    assert seen["HostConfig"]["RestartPolicy"] == {"Name": "unless-stopped", "MaximumRetryCount": 0}
    assert seen["NetworkSettings"]["IPAddress"]
    wait_until(lambda: docker.attempt("logs", "web").stdout == b"out\n", deadline=10, what="its output")
    assert docker.attempt("logs", "web").stderr == b"err\n"
    docker("stop", "-t", "0", "web")
    assert docker.inspect("web")["State"]["Status"] == "exited"
    assert docker("ps", "-q") == ""
    docker("start", "web")
    docker("restart", "-t", "0", "web")
    assert docker("ps", "--format", "{{.Names}}") == "web"
    docker("rename", "web", "front")
    assert docker.attempt("rm", "front").returncode == 1
    docker("rm", "-f", "front")
    assert docker("ps", "-aq") == ""


def test_container_runs_on_the_host_that_a_label_names(docker: Docker) -> None:
    docker("run", "-d", "--name", "there", "--label", "flota.node=n3", IMAGE, "sleep", "1000")
    assert docker.inspect("there")["Node"]["Name"] == "n3"
    docker("run", "-d", "--name", "here", "-e", "constraint:node==n2", IMAGE, "sleep", "1000")
    seen = docker.inspect("here")
    assert seen["Node"]["Name"] == "n2"
    assert not any("constraint" in entry for entry in seen["Config"]["Env"])


def test_wait_kill_and_exit_codes_are_dockers(docker: Docker) -> None:
    docker("run", "-d", "--name", "ends", IMAGE, "sh", "-c", "exit 7")
    assert docker("wait", "ends") == "7"
    docker("run", "-d", "--name", "killed", IMAGE, "sleep", "1000")
    docker("kill", "killed")
    assert docker("wait", "killed") == "137"
    assert "Exited (137)" in docker("ps", "-a", "-f", "name=killed", "--format", "{{.Status}}")
    missing = docker.attempt("run", "-d", "--name", "nothing", IMAGE, "/no/such")
    assert missing.returncode == 127 and b"no such file" in missing.stderr


MAPPED = (
    (("--oom-score-adj", "5"), "cat /proc/self/oom_score_adj", "5", ("OomScoreAdj", 5)),
    (("--device", "/dev/zero:/dev/nought:r"), "head -c 3 /dev/nought | wc -c", "3", None),
    (("--device-cgroup-rule", "c 10:250 rw"), "echo so", "so", ("DeviceCgroupRules", ["c 10:250 rw"])),
    (("--cpuset-mems", "0"), "echo so", "so", ("CpusetMems", "0")),
    (("--uts", "host"), "cat /proc/sys/kernel/hostname >/dev/null; echo so", "so", ("UTSMode", "host")),
    (("--cgroupns", "host"), "echo so", "so", ("CgroupnsMode", "host")),
    (("-e", "PATH"), "echo $PATH | wc -w", "1", None),
    (("--health-cmd", "true"), "echo so", "so", None),
    (("--no-healthcheck",), "echo so", "so", None),
)
"""Flags of `docker run`, what is run, what it says, and a field of HostConfig that tells of it."""


@pytest.mark.parametrize(("flags", "words", "said", "field"), MAPPED, ids=lambda value: str(value)[:30])
def test_flag_of_run_is_felt_and_shown(
    docker: Docker, flags: tuple[str, ...], words: str, said: str, field: tuple[str, Any] | None
) -> None:
    assert docker("run", "--name", "felt", *flags, IMAGE, "sh", "-c", words) == said
    if field is not None:
        assert docker.inspect("felt")["HostConfig"][field[0]] == field[1]


def test_limits_are_changed_while_it_runs_and_what_cannot_be_is_taken_back(docker: Docker) -> None:
    docker("run", "-d", "--name", "held", "-m", "64m", IMAGE, "sleep", "1000")
    pid = docker.inspect("held")["State"]["Pid"]
    docker("update", "-m", "32m", "--memory-swap", "64m", "--pids-limit", "20", "--restart", "always", "held")
    seen = docker.inspect("held")
    assert seen["State"]["Pid"] == pid
    limits = {name: seen["HostConfig"][name] for name in ("Memory", "MemorySwap", "PidsLimit")}
    assert limits == {"Memory": 32 << 20, "MemorySwap": 64 << 20, "PidsLimit": 20}
    assert seen["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert docker("stats", "--no-stream", "--format", "{{.MemUsage}}", "held").endswith("/ 32MiB")
    refused = docker.attempt("update", "--cpus", "5000", "held")
    assert refused.returncode == 1 and b"this host has" in refused.stderr
    assert docker.inspect("held")["HostConfig"]["NanoCpus"] == 0
    least = docker.attempt("update", "-m", "1m", "held")
    assert least.returncode == 1 and b"the smallest limit is 6MiB" in least.stderr


def test_mistakes_are_told_in_dockers_words(docker: Docker) -> None:
    docker("create", "--name", "taken", IMAGE, "true")
    again = docker.attempt("create", "--name", "taken", IMAGE, "true")
    assert b'Conflict. The container name "/taken" is already in use by container' in again.stderr
    assert b"No such container: nobody" in docker.attempt("start", "nobody").stderr
    assert b"No such object: nobody" in docker.attempt("inspect", "nobody").stderr
    refused = docker.attempt("create", "--kernel-memory", "8m", IMAGE, "true")
    assert refused.returncode == 1 and b"HostConfig.KernelMemory: is not supported" in refused.stderr
    assert docker("ps", "-aq").count("\n") == 0


def test_info_version_and_prune_are_of_the_fleet(docker: Docker) -> None:
    assert docker("version", "--format", "{{.Server.APIVersion}} {{.Client.APIVersion}}") == "1.51 1.41"
    docker("run", "-d", "--name", "lives", IMAGE, "sleep", "1000")
    docker("create", "--name", "never", IMAGE, "true")
    images = len(set(docker("images", "-q", "--no-trunc").split()))  # others may have left some
    told = docker("info", "--format", "{{.Containers}} {{.ContainersRunning}} {{.Images}}")
    assert told == f"2 1 {images}"
    never = docker.inspect("never")["Id"]
    assert never in docker("container", "prune", "-f")
    assert docker("ps", "-a", "--format", "{{.Names}}") == "lives"


def test_events_tell_of_lives_with_their_labels(docker: Docker) -> None:
    docker("run", "--name", "brief", "-d", "-l", "who=me", IMAGE, "sh", "-c", "exit 3")
    docker("wait", "brief")
    docker("rm", "brief")
    words = ("events", "--since", "1m", "--until", "0s", "-f", "label=who=me", "--format", "{{json .}}")

    def told() -> list[dict[str, Any]]:
        """Of whole seconds, as the command asks."""
        said = [json.loads(line) for line in docker(*words).splitlines()]
        return said if any(one["Action"] == "destroy" for one in said) else []

    said = wait_until(told, deadline=10, what="the events")
    assert [one["Action"] for one in said] == ["create", "start", "die", "destroy"]
    die = next(one for one in said if one["Action"] == "die")
    assert die["Actor"]["Attributes"]["exitCode"] == "3" and die["Actor"]["Attributes"]["name"] == "brief"


def test_files_processes_and_figures_of_a_container_are_had(docker: Docker, tmp_path: Path) -> None:
    docker("run", "-d", "--name", "box", IMAGE, "sh", "-c", "echo new >/etc/made; sleep 1000")
    wait_until(lambda: "A /etc/made" in docker("diff", "box"), deadline=10, what="its change")
    (tmp_path / "in").write_bytes(b"put\n")
    docker("cp", str(tmp_path / "in"), "box:/tmp/there")
    docker("cp", "box:/tmp/there", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b"put\n"
    gone = docker.attempt("cp", "box:/no/such", str(tmp_path / "none"))
    assert gone.returncode == 1 and b"No such container:path: box:/no/such" in gone.stderr
    assert "sleep 1000" in docker("top", "box")
    figures = docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}")
    assert figures.startswith("box ") and int(figures.split()[1]) >= 1
    exported = docker.attempt("export", "box").stdout
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        assert "etc/made" in archive.getnames()
    docker("pause", "box")
    assert "(Paused)" in docker("ps", "--format", "{{.Status}}")
    docker("unpause", "box")
    assert docker("ps", "-f", "status=running", "--format", "{{.Names}}") == "box"


def test_published_port_is_told_and_answers(docker: Docker, clean: Fleet) -> None:
    words = ("sh", "-c", "mkdir /w; echo page >/w/index.html; httpd -f -p 80 -h /w")
    docker("run", "-d", "--name", "web", "-p", "18080:80", "-l", "flota.node=n1", IMAGE, *words)
    assert "0.0.0.0:18080" in docker("port", "web", "80")
    assert "18080->80/tcp" in docker("ps", "--format", "{{.Ports}}")
    address = next(host.address for host in clean.rig.hosts if host.name == "n1")
    fetch = ["wget", "-q", "-O", "-", f"http://{address}:18080/"]

    def page() -> bool:
        return clean.rig.exec("n2", fetch, check=False).stdout == b"page\n"

    wait_until(page, deadline=15, what="the page")
