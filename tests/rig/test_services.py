"""Names and addresses of services over three hosts: balanced, replaced under load, alive without us."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.http import Api
from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.support import local_pid, replicas, wait_replicas
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
LOADS = Path(__file__).with_name("loads.py")
SERVE = "trap 'exit 0' TERM; echo page of $HOSTNAME > /www/index.html; httpd -f -p 80 -h /www & wait"
WELL = ("--health-http", "80/", "--health-interval", "1s")


def serve(fleet: Fleet, *words: str, replicas: int = 3, name: str = "web", command: str = SERVE) -> None:
    """With somebody who has a foot on the network; returns once every replica answers."""
    fleet.attempt("n1", "network", "create", "net1")
    fleet.flota("n1", "service", "create", "--name", name, "--replicas", str(replicas), "--network", "net1",
                *words, IMAGE, "sh", "-c", command)  # fmt: skip
    wait_replicas(fleet, name, replicas)
    asker = ("--name", "asker", "--node", "n1", "--network", "net1")
    fleet.attempt("n1", "run", "-d", *asker, IMAGE, "sleep", "9999")
    wait_until(lambda: len(pages(fleet, name, 4 * replicas)) == replicas, deadline=15, what="every replica")


def pages(fleet: Fleet, name: str, count: int) -> set[str]:
    """What so many requests of the asker got."""
    ask = f"for i in $(seq {count}); do wget -qO- http://{name}/ || echo failed; done"
    return set(fleet.attempt("n1", "exec", "asker", "sh", "-c", ask).stdout.decode().splitlines())


def vip(fleet: Fleet, name: str = "web") -> str:
    found = json.loads(fleet.flota("n1", "service", "inspect", name))[0]["service"]["vips"]
    return str(next(iter(found.values()))["ipv4"])


def ids(fleet: Fleet) -> set[str]:
    """Of the replicas of web, those that are about to go included."""
    return {r["instance"]["id"] for r in fleet.json("service", "ps", "web")}


class Client:
    """A steady load on an address, from the asker's network (tests/rig/loads.py)."""

    def __init__(self, fleet: Fleet, target: str, stop: Path) -> None:
        pid = local_pid(fleet, "n1", fleet.json("inspect", "asker")[0]["status"]["pid"])
        enter = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, str(LOADS)]
        self._stop = stop
        self._process = subprocess.Popen([*enter, target, str(stop)], stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Client:
        """What is done from now on, its connections meet."""
        assert self._process.stdout is not None and self._process.stdout.readline() == "up\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def result(self) -> dict[str, Any]:
        """End it; what became of its requests."""
        self._stop.touch()
        found: dict[str, Any] = json.loads(self._process.communicate(timeout=30)[0])
        return found


def test_a_services_name_leads_to_every_replica_wherever_it_runs(clean: Fleet) -> None:
    serve(clean)
    got = pages(clean, "web", 12)
    assert len(got) == 3 and all(page.startswith("page of ") for page in got)
    said = clean.flota("n1", "exec", "asker", "nslookup", "tasks.web")
    assert len(set(re.findall(r"Address: (10\.[\d.]+)$", said, re.M))) == 3
    told = clean.flota("n1", "exec", "asker", "nslookup", "web")
    assert vip(clean) in told
    slot = replicas(clean, "web")[0]["instance"]
    assert pages(clean, f"web.{slot['slot']}", 1) == {f"page of {slot['id'][:12]}"}


def test_replicas_that_leave_under_load_fail_no_request(clean: Fleet, tmp_path: Path) -> None:
    serve(clean, "--drain", "3s", replicas=6)
    with Client(clean, vip(clean), tmp_path / "stop") as client:
        clean.flota("n1", "service", "scale", "web=2")
        wait_until(
            lambda: len(clean.json("service", "ps", "web")) == 2, deadline=60, what="four replicas to go"
        )
        got = client.result()
    assert got["failed"] == [] and got["done"]["quick"] > 200, got


@pytest.mark.timeout(240)
@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_replacing_every_replica_under_load_fails_no_request(
    clean: Fleet, tmp_path: Path, order: str
) -> None:
    serve(clean, *WELL, "--drain", "3s", "--update-order", order)
    serve(clean, *WELL, replicas=1, name="calm")
    before = ids(clean)

    def replaced() -> bool:
        ready = [r for r in replicas(clean, "web") if r["status"].get("health") == "healthy"]
        return len(ready) == 3 and not before & ids(clean)

    with (
        Client(clean, vip(clean), tmp_path / "stop") as client,
        Client(clean, vip(clean, "calm"), tmp_path / "stop calm") as calm,
    ):
        asked = time.time()
        clean.flota("n1", "service", "update", "--env-add", "VERSION=2", "web")
        wait_until(replaced, deadline=90, what="three new replicas, and none of the old")
        got, untouched = client.result(), calm.result()
    assert got["failed"] == [] and got["done"]["quick"] > 300 and got["done"]["slow"] > 4, got
    assert len(got["closed"]) == 6 and min(got["closed"]) > asked + 3, "they last as long as the drain"
    assert untouched["failed"] == [] and untouched["done"]["idle"] == 6 and untouched["closed"] == [], (
        untouched
    )


@pytest.mark.slow
def test_replacing_replicas_that_declare_a_port_fails_no_request_without_a_check(
    clean: Fleet, tmp_path: Path
) -> None:
    """They listen a second after they run: that is found out by the port they publish."""
    late = f"sleep 1; {SERVE}"
    serve(clean, "--publish", "mode=host,target=80", "--update-order", "start-first", command=late)
    before = ids(clean)
    with Client(clean, vip(clean), tmp_path / "stop") as client:
        clean.flota("n1", "service", "update", "--env-add", "VERSION=2", "web")
        wait_until(lambda: not before & ids(clean), deadline=60, what="three new replicas")
        got = client.result()
    assert [text for text in got["failed"] if text.startswith("quick")] == [] and got["done"][
        "quick"
    ] > 500, got


def there(api: Api, service: str) -> int:
    """How many replicas it has."""
    return sum(i["instance"].get("service") == service for i in api.call("GET", "/v1/instances"))


def test_replica_that_leaves_waits_for_a_host_whose_agent_is_slow(clean: Fleet, tmp_path: Path) -> None:
    serve(clean, *WELL, "--drain", "500ms", "--constraint", "node.hostname!=n1", replicas=2)
    agent, api = clean.pid("n1", "agent"), Api(clean.socket())
    service = clean.json("service", "ls")[0]["service"]["id"]
    with contextlib.closing(api), Client(clean, vip(clean), tmp_path / "stop") as client:
        os.kill(agent, signal.SIGSTOP)
        try:
            # Not by the commands, each of which may take a second of the three after which a host is lost.
            api.call("POST", "/v1/services/web/scale?replicas=1")
            with pytest.raises(AssertionError, match="one has gone"):  # for three times the drain
                wait_until(lambda: there(api, service) != 2, deadline=1.5, what="one has gone")
        finally:
            os.kill(agent, signal.SIGCONT)
        wait_until(lambda: len(ids(clean)) == 1, deadline=30, what="one to go")
        got = client.result()
    assert not any(text.startswith("quick") for text in got["failed"]) and got["done"]["quick"] > 200, got


def test_names_and_addresses_go_on_without_agents_and_controller(clean: Fleet) -> None:
    serve(clean)
    pid = local_pid(clean, "n1", clean.json("inspect", "asker")[0]["status"]["pid"])
    for host in ("n1", "n2", "n3"):
        os.kill(clean.pid(host, "agent"), signal.SIGKILL)
    os.kill(clean.pid("n1", "controller"), signal.SIGKILL)
    try:
        enter = ["nsenter", "-t", str(pid), "--net", "--mount", f"--root=/proc/{pid}/root"]
        ask = "for i in $(seq 12); do wget -qO- http://web/ || echo failed; done"
        done = subprocess.run(
            [*enter, "/bin/sh", "-c", ask], capture_output=True, text=True, timeout=30, check=False
        )
        assert len(set(done.stdout.splitlines())) == 3 and "failed" not in done.stdout, done
    finally:
        clean.flota("n1", "controller", "--detach")
        for host in ("n1", "n2", "n3"):
            clean.flota(host, "agent", "--detach")
    clean.wait_ready(3)
    assert len(pages(clean, "web", 12)) == 3
