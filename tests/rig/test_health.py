"""Health on real hosts: commands, connections and requests as probes, and what they are good for."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.support import replicas
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
SERVE = "echo fine > /www/index.html; httpd -f -p 80 -h /www & while :; do wait; sleep 1; done"
HTTPD = "echo fine > /www/index.html; exec httpd -f -p 80 -h /www"


def run(fleet: Fleet, name: str, *words: str, command: str = "exec sleep 9999") -> None:
    fleet.flota("n1", "run", "-d", "--name", name, "--node", "n2", *words, IMAGE, "sh", "-c", command)


def inspect(fleet: Fleet, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.flota("n1", "inspect", name))[0]
    return found


def await_health(fleet: Fleet, name: str, wanted: str) -> dict[str, Any]:
    def seen() -> dict[str, Any] | None:
        found = inspect(fleet, name)
        return found if found["status"]["health"] == wanted else None

    return wait_until(seen, deadline=20, what=f"{name} {wanted}")


def status(fleet: Fleet, name: str) -> str:
    return fleet.flota("n1", "ps", "--filter", f"name={name}", "--format", "{{.Status}}").strip()


def test_a_command_says_how_a_container_is(clean: Fleet) -> None:
    fast = ("--health-interval", "200ms", "--health-retries", "2")
    run(clean, "box", "--health-cmd", "echo looked; test -e /tmp/well", *fast)
    run(clean, "young", "--health-cmd", "sleep 30")
    assert status(clean, "young").endswith("(health: starting)")
    found = await_health(clean, "box", "unhealthy")
    assert found["health"]["failing_streak"] >= 2 and found["health"]["log"][-1]["exit_code"] == 1
    assert found["health"]["log"][-1]["output"] == "looked\n"
    assert status(clean, "box").endswith("(unhealthy)")
    clean.flota("n1", "exec", "box", "touch", "/tmp/well")
    await_health(clean, "box", "healthy")
    assert status(clean, "box").endswith("(healthy)")
    assert clean.flota("n1", "ps", "-q", "--filter", "health=unhealthy") == ""
    why = ("its health check says healthy", "health_status: healthy")
    wait_until(lambda: all(w in clean.flota("n1", "why", "box") for w in why), deadline=5, what="why")
    ask = "ls /proc | grep -c '^[0-9]'"
    wait_until(  # a probe may be running just now; one left behind would stay
        lambda: int(clean.flota("n1", "exec", "box", "sh", "-c", ask)) <= 4,
        deadline=5,
        what="no probe left behind",
    )


def test_a_command_that_hangs_is_ended_with_its_children(clean: Fleet) -> None:
    hasty = ("--health-timeout", "300ms", "--health-interval", "2s", "--health-retries", "1")
    run(clean, "box", "--init", "--health-cmd", "sleep 77; true", *hasty)
    found = await_health(clean, "box", "unhealthy")
    assert found["health"]["log"][-1]["exit_code"] == -1
    assert "exceeded timeout" in found["health"]["log"][-1]["output"]
    ask = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 77' || true"
    wait_until(
        lambda: int(clean.flota("n1", "exec", "box", "sh", "-c", ask)) <= 2,
        deadline=5,
        what="no pile of probes",
    )


@pytest.mark.parametrize("network", ["bridge", "net1", "host", "none"])
def test_ports_are_asked_from_within_the_containers_network(clean: Fleet, network: str) -> None:
    if network == "net1":
        clean.flota("n1", "network", "create", "--internal", "net1")
    words = ("--network", network, "--health-interval", "200ms", "--health-retries", "2")
    port = "80" if network != "host" else "8099"
    serve = HTTPD.replace("80", port)
    run(clean, "web", *words, "--health-http", f"{port}/index.html", command=f"sleep 1; {serve}")
    assert await_health(clean, "web", "healthy")["health"]["log"][-1]["output"].endswith("fine\n")
    run(clean, "tcp", *words, "--health-tcp", "81" if network != "host" else "8098")
    found = await_health(clean, "tcp", "unhealthy")
    assert found["status"]["health_message"].endswith("Connection refused")


def service(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.flota("n1", "service", "inspect", "web"))[0]
    return found


def create(fleet: Fleet) -> None:
    health = ("--health-http", "80/", "--health-interval", "300ms", "--health-retries", "2")
    words = ("--name", "web", "--replicas", "2", "--stop-grace-period", "1s", *health)
    fleet.flota("n1", "service", "create", *words, IMAGE, "sh", "-c", SERVE)
    wait_until(lambda: service(fleet)["running"] == 2, deadline=30, what="two ready replicas")


def test_a_replica_that_gets_unhealthy_is_replaced_and_the_service_says_why(clean: Fleet) -> None:
    create(clean)
    first = replicas(clean, "web")[0]["instance"]["id"]
    clean.flota("n1", "exec", first, "killall", "httpd")
    why = "does not stay up: it is unhealthy: port 80 of "
    wait_until(lambda: why in clean.flota("n1", "service", "ls"), deadline=20, what="the condition")

    def replaced() -> bool:
        there = {r["instance"]["id"] for r in replicas(clean, "web")}
        return service(clean)["running"] == 2 and first not in there

    wait_until(replaced, deadline=30, what="another in its place")


def test_an_update_that_does_not_get_well_is_paused_and_taken_back(clean: Fleet) -> None:
    create(clean)
    clean.flota("n1", "service", "update", "--args", "sh -c 'exec sleep 9999'", "web")

    def state() -> str:
        return str(service(clean)["service"]["rollout"].get("state", "updating"))

    wait_until(lambda: state() == "paused", deadline=30, what="a pause")
    why = "the update is paused: 1 of 2 new instances failed: it is unhealthy"
    assert why in clean.flota("n1", "why", "web")
    assert service(clean)["running"] == 1, "the other one goes on"
    clean.flota("n1", "service", "rollback", "web")
    wait_until(lambda: state() == "rollback_completed", deadline=40, what="the old spec on both")
    assert service(clean)["running"] == 2
    assert "Update: rollback_completed" in clean.flota("n1", "service", "inspect", "--pretty", "web")


def test_health_goes_on_with_the_next_agent_without_a_moment_of_doubt(clean: Fleet) -> None:
    fast = ("--health-interval", "300ms", "--health-retries", "1")
    run(clean, "box", "--health-cmd", "test ! -e /tmp/ill", *fast)
    await_health(clean, "box", "healthy")
    os.kill(clean.pid("n2", "agent"), signal.SIGKILL)
    clean.flota("n2", "agent", "--detach")
    clean.wait_ready(3)
    assert inspect(clean, "box")["status"]["health"] == "healthy"
    clean.flota("n1", "exec", "box", "touch", "/tmp/ill")
    await_health(clean, "box", "unhealthy")
    assert clean.flota("n1", "why", "box").count("health_status: healthy") <= 1


def test_bad_health_flags_change_nothing(clean: Fleet) -> None:
    for words, said in (
        (("--health-tcp", "0", "--health-interval", "0.1ms"), ("is not a port", "health.interval")),
        (("--no-healthcheck", "--health-cmd", "true"), ("conflicts",)),
        (("--health-http", "80/a b"), ("is no path",)),
    ):
        done = clean.attempt("n1", "run", "-d", *words, IMAGE, "true")
        assert done.returncode == 125 and all(text in done.stderr.decode() for text in said), done
    assert clean.json("ps", "-a") == []
