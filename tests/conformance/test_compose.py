"""Docker Compose's command on ten projects, on one host and on three."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from deploy.rig.netns import address_of
from tests.conformance.compose import PATIENCE, Project, project
from tests.conformance.conftest import FIRST, Ground, ground
from tests.support.waiting import wait_until

BUILDKIT = {"DOCKER_BUILDKIT": "1", "COMPOSE_BAKE": "false"}
"""What compose does where nothing is said; bake wants a buildx beside it."""
pytestmark = [pytest.mark.rig, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=[1, 3], ids=["one", "three"])
def ground_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("compose"), request.param) as made:
        yield made


@pytest.fixture
def made(ground_of: Ground, request: pytest.FixtureRequest) -> Iterator[Project]:
    """The project that a test's name begins with."""
    name = request.node.originalname.removeprefix("test_").split("_")[0]
    with project(ground_of, name) as opened:
        yield opened


def fetch(made: Project, port: int) -> str:
    """Of n1's own address; "" while nothing answers."""
    asked = (
        "import urllib.request as u; "
        f"print(u.urlopen('http://{address_of(FIRST)}:{port}/', timeout=5).read().decode())"
    )
    return made.ground.run([sys.executable, "-c", asked], cwd=made.folder, timeout=PATIENCE).stdout.strip()


def says(made: Project, service: str, target: str) -> str:
    """What it hears of another of its project; "" of one out of its reach."""
    return made.attempt("compose", "exec", "-T", service, "nc", "-w", "3", target, "7000")[1].strip()


def test_web_alone_is_listed_answers_and_goes(made: Project) -> None:
    made.up()
    (listed,) = [json.loads(line) for line in made("ps", "--format", "json").splitlines()]
    assert (listed["Service"], listed["State"]) == ("web", "running")
    assert {one["PublishedPort"] for one in listed["Publishers"]} == {18081}
    inside = ("wget", "-q", "-O", "-", "http://web/")
    wait_until(lambda: made.attempt("compose", "exec", "-T", "web", *inside)[1], deadline=20, what="a page")
    assert made.exec("web", *inside) == "a page"
    assert "18081" in made("port", "web", "80")
    assert "httpd" in made("top", "web")
    made("stop")
    assert made("ps", "-q") == ""
    made("start")
    made("restart", "--timeout", "0")
    assert "web-1" in made("ps")
    made("down")
    assert made.left() == []


def test_database_is_healthy_before_what_depends_on_it_starts(made: Project) -> None:
    made("up", "-d")
    seen = made.containers()
    assert seen["db-1"]["State"]["Health"]["Status"] == "healthy"
    assert seen["migrate-1"]["State"]["ExitCode"] == 0
    assert seen["web-1"]["State"]["StartedAt"] > seen["migrate-1"]["State"]["FinishedAt"]
    wait_until(lambda: "rows" in made("logs", "--no-color", "web"), deadline=20, what="the rows")
    made.settled()


def test_networks_part_services_and_have_aliases(made: Project) -> None:
    seen = made.up()
    assert set(seen["front-1"]["NetworkSettings"]["Networks"]) == {"networks_outer", "networks_inner"}
    for name in ("back", "store", "kept.example", "outside"):
        wait_until(lambda name=name: says(made, "front", name) == "here", deadline=20, what=f"{name} answers")  # type: ignore[misc]
    address = seen["back-1"]["NetworkSettings"]["Networks"]["networks_inner"]["IPAddress"]
    assert says(made, "front", address) == "here"
    assert says(made, "outside", "back") == says(made, "outside", address) == ""
    assert json.loads(made.docker("network", "inspect", "networks_inner"))[0]["Internal"]


def test_volumes_are_shared_bound_and_in_memory(made: Project) -> None:
    made.up()
    wait_until(lambda: "page" in made.exec("reader", "cat", "/data/copy"), deadline=20, what="the copy")
    assert made.attempt("compose", "exec", "-T", "writer", "touch", "/site/new")[0] != 0
    assert made.attempt("compose", "exec", "-T", "reader", "touch", "/data/new")[0] != 0
    memory = [line.split()[1] for line in made.exec("writer", "cat", "/proc/mounts").splitlines()
              if line.startswith("tmpfs ")]  # fmt: skip
    assert {"/scratch", "/run/quick"} <= set(memory)
    made("down")
    assert made.left() == ["volume volumes_data"]
    made.up()
    assert made.exec("reader", "cat", "/data/copy") == "a page of a folder"


def test_profiles_and_variables_choose_what_runs(made: Project) -> None:
    assert set(made.up()) == {"app-1"}
    environment = made.exec("app", "env").splitlines()
    assert {"GREETING=hello world", "FROM_FILE=of the file", "QUOTED=two words"} <= set(environment)
    assert set(made.up("app", env={"GREETING": "welcome"})) == {"app-1"}
    assert "GREETING=welcome world" in made.exec("app", "env")
    made("--profile", "debug", "up", "-d", env={"GREETING": "welcome"})
    assert set(made.containers()) == {"app-1", "debug-1"}


def test_scale_takes_ports_of_its_range_and_gives_them_back(made: Project) -> None:
    assert set(made.up()) == {"web-1", "web-2"}
    made("up", "-d", "--scale", "web=4")
    seen = made.settled("--scale", "web=4")
    assert len(seen) == 4
    taken = [
        (one.get("Node", {}).get("Name"), one["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])
        for one in seen.values()
    ]
    assert len(set(taken)) == 4 and {port for _, port in taken} <= {"18090", "18091", "18092", "18093"}
    here = next(int(port) for node, port in taken if node == FIRST)
    wait_until(lambda: fetch(made, here), deadline=20, what="an answer at a port of the range")
    made("scale", "web=1")
    assert set(made.containers()) == {"web-1"}


def test_build_is_of_the_projects_folder(made: Project) -> None:
    made("build")
    seen = made.up()
    assert seen["app-1"]["Config"]["Labels"]["built.by"] == "compose"
    words = ["made for compose", "a word of the context"]
    wait_until(
        lambda: made("logs", "--no-log-prefix", "app").splitlines() == words, deadline=20, what="its words"
    )
    (made.folder / "word").write_text("another word\n")
    made("up", "-d", "--build")
    assert made.exec("app", "cat", "/word") == "another word"
    assert made.containers()["app-1"]["Id"] != seen["app-1"]["Id"]


def test_build_by_buildkits_protocol_is_cached_and_fails_in_words(made: Project) -> None:
    words = ("compose", "--project-name", made.name, "build", "--progress", "plain")
    code, output, errors = made.attempt(*words, env=BUILDKIT)
    assert code == 0 and "load build definition" in output + errors, output + errors
    seen = made.up()
    assert seen["app-1"]["Config"]["Labels"]["built.by"] == "compose"
    assert made.exec("app", "cat", "/made", "/word") == "made for compose\na word of the context"
    code, output, errors = made.attempt(*words, env=BUILDKIT)
    assert code == 0 and "CACHED" in output + errors, output + errors
    (made.folder / "word").unlink()
    code, output, errors = made.attempt(*words, env=BUILDKIT)
    assert code != 0 and "word" in errors, output + errors


def test_health_and_restarts_are_what_the_project_says(made: Project) -> None:
    made("up", "-d")

    def third() -> bool:
        seen = made.containers()["again-1"]
        return bool(seen["RestartCount"] == 2 and seen["State"]["Status"] == "running")

    wait_until(third, deadline=60, what="its third life")
    wait_until(lambda: "(healthy)" in made("ps", "well"), deadline=30, what="its health")
    seen = made.settled()
    assert seen["again-1"]["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 5}
    assert "Health" not in seen["unchecked-1"]["State"]
    made.exec("well", "touch", "/tmp/ill")
    wait_until(lambda: "(unhealthy)" in made("ps", "well"), deadline=30, what="its illness")


def test_limits_options_and_labels_arrive(made: Project) -> None:
    seen = made.up()["app-1"]
    host = seen["HostConfig"]
    assert (
        seen["Config"]["Labels"]["org.example.role"] == "limited" and seen["Config"]["Labels"]["plain"] == ""
    )
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    assert (host["Memory"], host["MemoryReservation"], host["PidsLimit"]) == (64 << 20, 32 << 20, 50)
    assert (host["NanoCpus"], host["ShmSize"], host["ReadonlyRootfs"]) == (500_000_000, 8 << 20, True)
    limits = {one["Name"]: (one["Soft"], one["Hard"]) for one in host["Ulimits"]}
    assert limits == {"nofile": (1000, 2000), "nproc": (500, 500)}
    wait_until(
        lambda: made("logs", "--no-log-prefix").split() == ["1000", "256"], deadline=20, what="its limits"
    )
    status = made.exec("app", "sh", "-c", "id; cat /proc/1/status; touch /new 2>&1 || echo kept")
    assert "uid=1000" in status and "2000" in status and "NoNewPrivs:\t1" in status and "kept" in status


def test_secrets_and_configs_are_files_and_a_signal_ends_it(made: Project) -> None:
    seen = made.up()["app-1"]
    assert made.exec("app", "cat", "/run/secrets/password", "/etc/settings.ini").splitlines() == [
        "a word that opens",
        "[app]",
        "colour = green",
    ]
    assert (seen["Config"]["Hostname"], seen["Config"]["StopSignal"]) == ("apphost", "SIGUSR1")
    assert "192.0.2.7" in made.exec("app", "cat", "/etc/hosts") and made.exec("app", "pwd") == "/srv"
    assert made.exec("app", "hostname") == "apphost"
    wait_until(lambda: "up" in made("logs", "app"), deadline=20, what="its trap")
    made("stop")
    assert made.containers()["app-1"]["State"]["ExitCode"] == 0
    assert "stopped by USR1" in made("logs", "app")
