"""Images built on a fleet, of the examples that come with it: what instructions do, at build and run time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet import FLOTA, Fleet
from tests.rig.conftest import IMAGE
from tests.rig.support import replicas, wait_replicas
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
EXAMPLES = Path(__file__).resolve().parents[2] / "deploy/examples"
BIN = ("--build-context", "bin=/bin")


def built(fleet: Fleet, *words: str, stdin: bytes | None = None) -> str:
    """Its id."""
    return fleet.flota("n1", "build", "-q", *words, stdin=stdin).strip()


def inspect(fleet: Fleet, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.flota("n1", "inspect", name))[0]
    return found


def config(fleet: Fleet, name: str) -> dict[str, Any]:
    [found] = json.loads(fleet.flota("n1", "image", "inspect", name))
    record: dict[str, Any] = found["image"]
    return record


def test_example_of_a_web_server_is_built_once_and_served_on_every_host_when_healthy(clean: Fleet) -> None:
    ident = built(clean, *BIN, "-t", "web:1", str(EXAMPLES / "web"))
    [row] = [row for row in clean.json("images") if row["name"] == "web:1"]
    assert row["image"]["id"] == ident and sorted(row["hosts"]) == ["n1", "n2", "n3"]
    clean.flota("n1", "service", "create", "--name", "web", "--replicas", "3", "-p", "8099:80", "web:1")
    wait_replicas(clean, "web", 3)
    wait_until(
        lambda: all(r["status"].get("health") == "healthy" for r in replicas(clean, "web")),
        deadline=20,
        what="healthy replicas",
    )
    host = clean.rig.hosts[1]
    page = clean.rig.exec("n1", ["busybox", "wget", "-qO-", f"http://{host.address}:8099/"])
    assert page.stdout.startswith(b"hello from ")


def test_example_of_every_instruction_does_what_each_says(clean: Fleet) -> None:
    built(clean, *BIN, "--host", "n1", "-t", "every:1", str(EXAMPLES / "every-instruction"))
    record = config(clean, "every:1")
    made = record["config"]
    assert made["labels"]["org.opencontainers.image.title"] == "every instruction"
    assert {"APP_HOME=/srv/app", "APP_DATA=/srv/app/data", "PATH=/srv/app/bin:/bin"} <= set(made["env"])
    assert made["user"] == "app:users" and made["workdir"] == "/srv/app/data"
    assert made["entrypoint"] == ["start"] and made["cmd"] == ["serve"]
    assert set(made["exposed_ports"]) == {"8080/tcp", "8053/udp"} and made["stop_signal"] == "SIGINT"
    assert made["volumes"] == ["/srv/app/data/kept"]
    said = clean.flota("n1", "run", "--rm", "--node", "n1", "every:1", "show").splitlines()
    assert said == [
        "app", "/srv/app/data", "hello from the first stage", "one", "two", "three", "a name with spaces",
        "written in the Dockerfile, for app", "a=1", "b=2", "unpacked by ADD",
    ]  # fmt: skip
    owners = "stat -c %u:%g greeting.txt conf.d/a.conf page.html; ls conf.d"
    words = ("run", "--rm", "--node", "n1", "--entrypoint", "sh", "every:1", "-c", owners)
    assert clean.flota("n1", *words).split() == ["1234:100", "1234:100", "0:0", "a.conf", "b.conf"]


def test_container_of_a_built_image_is_watched_published_mounted_and_stopped_as_it_says(clean: Fleet) -> None:
    built(clean, *BIN, "--host", "n1", "-t", "every:1", str(EXAMPLES / "every-instruction"))
    clean.flota("n1", "run", "-d", "-P", "--name", "e", "--node", "n1", "every:1")
    wait_until(lambda: inspect(clean, "e")["status"].get("health") == "healthy", deadline=20, what="healthy")
    ports = clean.flota("n1", "port", "e")
    assert "8080/tcp -> 0.0.0.0:" in ports and "8053/udp -> 0.0.0.0:" in ports
    volumes = [one["volume"] for one in clean.json("volume", "ls", "--node", "n1")]
    assert any("/srv/app/data/kept" in json.dumps(inspect(clean, "e")) for _ in volumes) and volumes
    clean.flota("n1", "exec", "e", "rm", "/tmp/ready")
    wait_until(
        lambda: inspect(clean, "e")["status"].get("health") == "unhealthy", deadline=20, what="unhealthy"
    )
    clean.flota("n1", "stop", "-t", "20", "e")
    assert inspect(clean, "e")["status"].get("exit_code") == 0  # SIGINT was heard; KILL would give 137


def test_replica_of_a_built_image_that_gets_unhealthy_is_replaced(clean: Fleet) -> None:
    built(clean, *BIN, "-t", "every:1", str(EXAMPLES / "every-instruction"))
    clean.flota("n1", "service", "create", "--name", "s", "--replicas", "1", "every:1")

    def healthy() -> str | None:
        found = [r for r in replicas(clean, "s") if r["status"].get("health") == "healthy"]
        return found[0]["instance"]["id"] if found else None

    first = str(wait_until(healthy, deadline=30, what="a healthy replica"))
    clean.flota("n1", "exec", first, "rm", "/tmp/ready")
    wait_until(lambda: healthy() not in (None, first), deadline=30, what="another healthy replica")
    assert "unhealthy" in clean.flota("n1", "events", "--since", "2m", "--until", "0s")


@pytest.mark.parametrize(
    "flag",
    [
        "--provenance=true --output=type=tar,dest=/dev/null",
        "--output=type=local,dest=x,platform-split=0 --platform=linux/amd64,linux/arm64",
    ],
)
def test_what_is_not_there_is_refused_and_not_left_out(clean: Fleet, flag: str) -> None:
    done = clean.attempt("n1", "build", *flag.split(), *BIN, str(EXAMPLES / "web"))
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(b"flota: ")
    assert b"CACHED" not in done.stderr and b"DONE" not in done.stderr


def test_onbuild_of_a_built_image_happens_in_its_child(clean: Fleet) -> None:
    built(clean, *BIN, "--host", "n2", "-t", "every:1", str(EXAMPLES / "every-instruction"))
    built(clean, "--host", "n2", "-t", "child:1", str(EXAMPLES / "every-instruction/child"))
    words = ("run", "--rm", "--node", "n2", "--entrypoint", "cat", "child:1", "extra.txt")
    assert clean.flota("n1", *words) == "copied by ONBUILD\n"
    assert not config(clean, "child:1")["config"].get("onbuild")


def test_builds_of_one_context_go_to_one_host_which_is_told_with_its_reason(clean: Fleet) -> None:
    said = [clean.attempt("n1", "build", *BIN, str(EXAMPLES / "web")).stderr.decode() for _ in range(3)]
    places = {text.splitlines()[0] for text in said}
    assert len(places) == 1 and "its cache is the warmest" in places.pop()
    assert said[-1].count("CACHED") == 5
    named = clean.attempt("n1", "build", "--host", "n3", *BIN, str(EXAMPLES / "web")).stderr.decode()
    assert named.startswith("building on n3: as you said")


def test_failing_run_is_told_with_its_output_its_place_and_exit_code_one(
    clean: Fleet, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo some words; exit 7\n")
    done = clean.attempt("n1", "build", str(tmp_path))
    said = done.stderr.decode()
    assert done.returncode == 1 and "some words" in said
    assert "2 | RUN echo some words; exit 7" in said and "exit code 7" in said.splitlines()[-1]


def test_image_is_given_as_an_archive_a_tar_and_a_folder(clean: Fleet, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN mkdir -m 711 /made && echo it > /made/file\n")
    folder, archive = tmp_path / "out", tmp_path / "image.tar"
    before = clean.json("images")
    clean.flota("n1", "build", "-o", str(folder), "-o", f"type=tar,dest={tmp_path / 'root.tar'}",
                "-o", f"type=oci,dest={archive}", "-t", "given:1", str(tmp_path))  # fmt: skip
    assert (folder / "made/file").read_text() == "it\n" and (folder / "made").stat().st_mode & 0o777 == 0o711
    listed = subprocess.run(
        ["tar", "tf", str(tmp_path / "root.tar")], capture_output=True, check=True, text=True
    )
    assert "made/file" in listed.stdout.replace("./", "")
    shown = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci-archive:{archive}"], capture_output=True, check=True
    )
    assert json.loads(shown.stdout)["schemaVersion"] == 2
    assert sorted(i["image"]["id"] for i in clean.json("images")) == sorted(i["image"]["id"] for i in before)


def builders(fleet: Fleet, host: str) -> list[str]:
    """What a build leaves on its host while it runs: bundles, and mounts of steps."""
    top = str(fleet.rig.run_folder(host) / "agent/build")
    found = fleet.rig.exec(host, ["ls", top], check=False).stdout.decode().split()
    mounts = fleet.rig.exec(host, ["cat", "/proc/self/mountinfo"]).stdout.decode()
    return found + [line for line in mounts.splitlines() if "/images/builds/" in line]


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo first\nRUN echo begun; sleep 300\n")
    return tmp_path


@pytest.fixture
def building(clean: Fleet, slow: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A build on n2 whose second RUN is under way."""
    log = slow / "log"
    process = clean.rig.spawn("n1", [FLOTA, "build", "--host", "n2", str(slow)], log=str(log))
    wait_until(lambda: b"begun\n" in log.read_bytes().split(b"RUN echo begun")[-1], deadline=30, what="begun")
    yield process
    if process.poll() is None:
        process.kill()
    process.wait(20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_client_that_ends_leaves_nothing_on_the_host(
    clean: Fleet, building: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    assert builders(clean, "n2")
    os.killpg(building.pid, number)
    building.wait(20)
    wait_until(lambda: not builders(clean, "n2"), deadline=20, what="nothing left of the build")


def test_agent_that_is_killed_during_a_step_builds_right_afterwards_and_leaves_nothing(
    clean: Fleet, building: subprocess.Popen[bytes], slow: Path
) -> None:
    os.kill(clean.pid("n2", "agent"), signal.SIGKILL)
    assert building.wait(40) == 1
    clean.flota("n2", "agent", "--detach")
    clean.wait_ready(3)
    wait_until(lambda: not builders(clean, "n2"), deadline=20, what="nothing left of the build")
    (slow / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo first\nRUN echo second\n")
    said = clean.attempt("n1", "build", "--host", "n2", str(slow)).stderr.decode()
    assert "CACHED" in said and "second" in said


@pytest.fixture
def site(clean: Fleet, tmp_path: Path) -> Iterator[str]:
    """A web server on n1: a page, and a build context as a tar."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "page.html").write_text("<p>fetched</p>\n")
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY Dockerfile /from-a-tar\nCMD cat /from-a-tar\n")
    subprocess.run(
        ["tar", "-C", str(tmp_path), "-czf", str(folder / "context.tgz"), "Dockerfile"], check=True
    )
    words = ["busybox", "httpd", "-f", "-p", "8088", "-h", str(folder)]
    process = clean.rig.spawn("n1", words, log=str(tmp_path / "httpd"))
    address = clean.rig.hosts[0].address
    probe = ["busybox", "wget", "-qO-", f"http://{address}:8088/page.html"]
    wait_until(lambda: clean.rig.exec("n1", probe, check=False).returncode == 0, deadline=10, what="httpd")
    yield f"http://{address}:8088"
    process.kill()
    process.wait(10)


def test_url_is_added_only_if_private_addresses_are_allowed(clean: Fleet, site: str, tmp_path: Path) -> None:
    example = str(EXAMPLES / "every-instruction")
    words = ("build", *BIN, "--host", "n2", "-t", "every:2", "--build-arg", f"page={site}/page.html", example)
    refused = clean.attempt("n1", *words)
    assert refused.returncode == 1 and b"private" in refused.stderr.splitlines()[-1]
    clean.flota("n1", *words[:-1], "--private-addresses", example)
    page = ("run", "--rm", "--node", "n2", "--user", "0", "--entrypoint", "cat", "every:2", "page.html")
    assert clean.flota("n1", *page) == "<p>fetched</p>\n"


def test_fleets_own_api_is_never_added(clean: Fleet, tmp_path: Path) -> None:
    address = clean.rig.hosts[0].address
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nADD https://{address}:7420/v1/ca /\n")
    for host in ("n1", "n2"):
        done = clean.attempt("n1", "build", "--private-addresses", "--host", host, str(tmp_path))
        assert done.returncode == 1 and b"fleet" in done.stderr.splitlines()[-1]


def test_tar_behind_a_url_is_a_context_with_its_dockerfile(clean: Fleet, site: str) -> None:
    built(clean, "--private-addresses", "--host", "n2", "-t", "tar:1", f"{site}/context.tgz")
    assert "COPY Dockerfile" in clean.flota("n1", "run", "--rm", "--node", "n2", "tar:1")


REGISTRY = "127.0.0.1:5003"


@pytest.fixture
def registry(clean: Fleet, tmp_path: Path) -> Iterator[str]:
    """docker-registry on n1's loopback."""
    config_ = tmp_path / "registry.yml"
    folder = tmp_path / "registry"
    config_.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}}}}}\nhttp: {{addr: '{REGISTRY}'}}\n"
    )
    process = clean.rig.spawn("n1", ["docker-registry", "serve", str(config_)], log=str(tmp_path / "reg.log"))
    probe = ["busybox", "wget", "-qO-", f"http://{REGISTRY}/v2/"]
    wait_until(lambda: clean.rig.exec("n1", probe, check=False).returncode == 0, deadline=20, what="registry")
    yield REGISTRY
    process.kill()
    process.wait(10)


def manifest(fleet: Fleet, name: str) -> dict[str, Any]:
    words = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    found: dict[str, Any] = json.loads(fleet.rig.exec("n1", words).stdout)
    return found


def test_push_puts_the_image_into_a_registry_and_tells_its_digest(
    clean: Fleet, registry: str, tmp_path: Path
) -> None:
    name, told = f"{registry}/team/web:1", tmp_path / "metadata"
    words = (*BIN, "--host", "n1", "--push", "-t", name, "--metadata-file", str(told), str(EXAMPLES / "web"))
    built(clean, *words)
    pushed = manifest(clean, name)
    metadata = json.loads(told.read_text())
    assert pushed["config"]["digest"] == metadata["containerimage.config.digest"]
    assert metadata["image.name"] == name
    digest = metadata["containerimage.digest"]
    assert manifest(clean, f"{registry}/team/web@{digest}") == pushed


def test_several_platforms_are_one_index_in_the_registry(clean: Fleet, registry: str, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/Dockerfile").write_text(
        "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY Dockerfile /\n"
    )
    name, both = f"{registry}/team/multi:1", "linux/amd64,linux/arm64"
    built(clean, "--platform", both, "--host", "n1", "--push", "-t", name, str(tmp_path / "app"))
    index = manifest(clean, name)
    found = {one["platform"]["architecture"]: one["digest"] for one in index["manifests"]}
    assert set(found) == {"amd64", "arm64"}
    for arch, digest in found.items():
        words = [
            "skopeo",
            "inspect",
            "--config",
            "--tls-verify=false",
            f"docker://{registry}/team/multi@{digest}",
        ]
        config_ = json.loads(clean.rig.exec("n1", words).stdout)
        assert config_["architecture"] == arch and config_["config"]["Labels"] == {"arch": arch}
    refused = clean.attempt(
        "n1", "build", "--platform", both, "-o", "type=docker,dest=-", str(tmp_path / "app")
    )
    assert refused.returncode == 1 and b"one platform" in refused.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_example_of_two_stages_compiles_in_debian_and_runs_in_nothing(clean: Fleet) -> None:
    """Its base is made by debootstrap, once for a machine: that takes minutes."""
    example = EXAMPLES / "two-stage"
    clean.rig.exec("n1", ["env", f"FLOTA={FLOTA}", str(example / "base")], timeout=1500)
    built(clean, "--host", "n1", "-t", "hello:1", str(example))
    said = clean.flota("n1", "run", "--rm", "--node", "n1", "hello:1")
    assert said.startswith("hello from ") and said.endswith(", as user 65534\n")
    assert config(clean, "hello:1")["size"] < 20_000_000
    again = clean.attempt("n1", "build", "--host", "n1", str(example)).stderr.decode()
    assert again.count("CACHED") == 4
