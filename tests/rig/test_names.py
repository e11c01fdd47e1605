"""Names over hosts, as containers ask for them: of each other, of services, while daemons are dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.support import AT_ONCE, address, local_pid, on_host, wait_replicas
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig


def look_up(fleet: Fleet, container: str, name: str, kind: str = "a") -> str:
    """What its own resolver says, by the container's /etc/resolv.conf."""
    done = fleet.attempt("n1", "exec", container, "nslookup", f"-type={kind}", name)
    return done.stdout.decode() + done.stderr.decode()


def addresses(fleet: Fleet, container: str, name: str) -> set[str]:
    """Without the first two lines, which name the resolver itself."""
    lines = look_up(fleet, container, name).splitlines()[2:]
    return {line.split()[-1] for line in lines if line.startswith("Address")}


def run(fleet: Fleet, name: str, host: str, *words: str) -> str:
    fleet.flota("n1", "run", "-d", "--name", name, "--node", host, *words, IMAGE, "sleep", "9999")
    return address(fleet.json("inspect", name)[0], "back")


def resolver_pid(fleet: Fleet, host: str) -> int:
    pid = on_host(fleet, host, "cat", "/run/flota/agent/names/pid").split()[0]
    return local_pid(fleet, host, int(pid))


def test_containers_and_services_are_found_on_every_host_and_without_daemons(clean: Fleet) -> None:
    fleet = clean
    fleet.flota("n1", "network", "create", "back")
    fleet.flota("n1", "network", "create", "other")
    near = run(fleet, "near", "n1", "--network", "back", "--network-alias", "Spot")
    far = run(fleet, "far", "n2", "--network", "back")
    fleet.flota(
        "n1", "run", "-d", "--name", "alien", "--node", "n1", "--network", "other", IMAGE, "sleep", "9999"
    )
    wait_until(lambda: addresses(fleet, "near", "far") == {far}, deadline=10, what="far from near")
    wait_until(lambda: addresses(fleet, "far", "near") == {near}, deadline=10, what="near from far")
    assert addresses(fleet, "far", "spot.back") == {near}
    assert not addresses(fleet, "alien", "near")

    words = ("service", "create", "--name", "web", "--replicas", "3", "--network", "back", *AT_ONCE)
    fleet.flota("n1", *words, "--endpoint-mode", "dnsrr", IMAGE, "sleep", "9999")
    tasks = {address(task, "back") for task in wait_replicas(fleet, "web", 3)}
    wait_until(lambda: addresses(fleet, "near", "tasks.web") == tasks, deadline=10, what="tasks")
    wait_until(lambda: addresses(fleet, "far", "web") == tasks, deadline=10, what="tasks from far")
    fleet.flota("n1", "service", "scale", "web=1")
    left = {address(task, "back") for task in wait_replicas(fleet, "web", 1)}
    wait_until(lambda: addresses(fleet, "near", "web") == left, deadline=10, what="one task")

    pid = resolver_pid(fleet, "n2")
    with open(f"/proc/{pid}/status") as file:
        assert "\nNoNewPrivs:\t1" in file.read()
    status = fleet.json("inspect", "far")[0]["status"]
    inside, gateway = status["pid"], status["endpoints"][0]["gateway"]
    fleet.flota("n2", "down")
    try:
        enter = ("nsenter", "--net", "--target", str(inside))
        assert near in on_host(fleet, "n2", *enter, "busybox", "nslookup", "near", gateway)
        assert resolver_pid(fleet, "n2") == pid
        os.kill(pid, signal.SIGKILL)
        again = ("busybox", "timeout", "1", "nslookup", "near", gateway)
        wait_until(
            lambda: near in fleet.rig.exec("n2", [*enter, *again], check=False).stdout.decode(),
            deadline=3,
            what="a new resolver without an agent",
        )
        pid = resolver_pid(fleet, "n2")
    finally:
        fleet.flota("n2", "agent", "--detach")
    wait_until(lambda: addresses(fleet, "far", "near") == {near}, deadline=20, what="after the restart")
    assert resolver_pid(fleet, "n2") == pid, "adopted"
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: addresses(fleet, "far", "near") == {near}, deadline=20, what="a new resolver")


def test_host_whose_resolver_cannot_listen_says_so(clean: Fleet) -> None:
    """The trouble reaches people; it ends when the port is free."""
    fleet = clean
    code = (
        "import socket,sys,time\n"
        "s = socket.socket(type=socket.SOCK_DGRAM)\n"
        "while s.getsockname()[1] != 53:\n"
        " try: s.bind(('0.0.0.0', 53))\n"
        " except OSError: time.sleep(0.05)  # the networks of the test before are about to go\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
    )
    argv = [*fleet.rig.enter("n3"), sys.executable, "-c", code]
    blocker = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert blocker.stdout is not None and blocker.stdout.readline() == b"up\n"
        fleet.flota("n1", "network", "create", "back")
        run(fleet, "blocked", "n3", "--network", "back")
        wait_until(
            lambda: "another DNS server" in fleet.flota("n1", "node", "inspect", "n3"),
            deadline=10,
            what="n3 says so",
        )
    finally:
        blocker.communicate()
    wait_until(lambda: addresses(fleet, "blocked", "blocked"), deadline=10, what="names after all")
