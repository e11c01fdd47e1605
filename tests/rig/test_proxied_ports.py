"""Published ports that tell the PROXY protocol, by the commands, while agents come and go."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from deploy.fleet import Fleet
from deploy.rig.netns import OUTSIDE_ADDRESS, address_of
from tests.rig.conftest import IMAGE
from tests.rig.support import AT_ONCE, local_pid, on_host, wait_replicas
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig

ECHO = ("nc", "-ll", "-p", "80", "-e", "cat")
"""Gives back all that comes, the header too."""
WHO = ("nc", "-ll", "-p", "80", "-e", "sh", "-c", 'read header; echo "$(hostname) $header"')
TALK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as s:
    print("up", flush=True)
    for line in sys.stdin:
        s.sendall(line.encode())
        print(s.recv(4096).decode().encode("unicode_escape").decode(), flush=True)
"""


class Talk:
    """A connection from outside of the fleet, that stays."""

    def __init__(self, fleet: Fleet, host: str, port: int) -> None:
        enter = f"--net=/run/netns/{fleet.rig.name}-sw"
        argv = ["nsenter", enter, sys.executable, "-u", "-c", TALK, address_of(host), str(port)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.up = self.process.stdout.readline() == "up\n"

    def say(self, line: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def talk(fleet: Fleet, host: str, port: int) -> Iterator[Talk]:
    made = Talk(fleet, host, port)
    try:
        yield made
    finally:
        made.close()


def answer(fleet: Fleet, host: str, port: int) -> str:
    """What comes back on a new connection; empty when there is none."""
    with talk(fleet, host, port) as one:
        return one.say("hi") if one.up else ""


def proxy_pid(fleet: Fleet, host: str) -> int:
    pid = on_host(fleet, host, "cat", "/run/flota/agent/proxy/pid").split()[0]
    return local_pid(fleet, host, int(pid))


def test_container_is_told_its_clients_and_connections_outlive_the_agent(clean: Fleet) -> None:
    fleet = clean
    words = ("--name", "box", "--node", "n2", "-p", "published=8443,target=80,proxy-protocol=v1")
    fleet.flota("n1", "run", "-d", *words, IMAGE, *ECHO)
    wait_until(lambda: answer(fleet, "n2", 8443), deadline=10, what="the first answer")
    with talk(fleet, "n2", 8443) as standing:
        header, _, rest = standing.say("hi").partition("\\r\\n")
        assert header.split()[:4] == ["PROXY", "TCP4", OUTSIDE_ADDRESS, address_of("n2")]
        assert header.split()[5] == "8443" and rest in ("hi\\n", "")
        told = fleet.json("inspect", "box")[0]["status"]["ports"]
        assert [(p["published"], p["proxy_protocol"]) for p in told] == [(8443, "v1")]

        pid = proxy_pid(fleet, "n2")
        fleet.flota("n2", "down")
        try:
            assert standing.say("no agent")
            assert answer(fleet, "n2", 8443).startswith("PROXY TCP4")
        finally:
            fleet.flota("n2", "agent", "--detach")
        assert standing.say("another agent") and proxy_pid(fleet, "n2") == pid, "it went on"

    fleet.flota("n2", "down")
    try:
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        wait_until(lambda: answer(fleet, "n2", 8443), deadline=10, what="another proxy without an agent")
        assert time.monotonic() - began < 2
    finally:
        fleet.flota("n2", "agent", "--detach")
    fleet.wait_ready(3)


def test_proxied_port_is_changed_refused_and_given_back(clean: Fleet) -> None:
    fleet = clean
    fleet.flota("n1", "run", "-d", "--name", "box", "--node", "n3", "-p", "9000:80", IMAGE, *ECHO)
    wait_until(lambda: answer(fleet, "n3", 9000) == "hi\\n", deadline=10, what="a plain answer")
    change = ("--publish-rm", "80", "--publish-add", "published=9000,target=80,proxy-protocol=v1")
    fleet.flota("n1", "update", *change, "box")
    assert answer(fleet, "n3", 9000).startswith("PROXY TCP4")
    fleet.flota(
        "n1", "policy", "create", "some", "--for", "container=box", "--ingress", "allow=cidr:10.9.0.0/16"
    )
    wait_until(lambda: not answer(fleet, "n3", 9000), deadline=10, what="a client that the policy shuts out")
    those = ("policy", "create", "those", "--for", "container=box")
    fleet.flota("n1", *those, "--ingress", f"allow=cidr:{OUTSIDE_ADDRESS}/32,port=80")
    wait_until(lambda: answer(fleet, "n3", 9000), deadline=10, what="a client that another policy lets in")
    fleet.flota("n1", "policy", "rm", "some", "those")
    change = (*change[:3], f"{change[3]},allow=10.9.0.0/16")
    fleet.flota("n1", "update", *change, "box")
    assert not answer(fleet, "n3", 9000), "not on the list"

    taken = fleet.attempt("n1", "run", "-d", "--node", "n3", "-p", "9000:80", IMAGE, *ECHO)
    assert taken.returncode and b"9000/tcp" in taken.stderr
    words = ("run", "-d", "-p", "published=9001,target=80,protocol=udp,proxy-protocol=v2", IMAGE, *ECHO)
    udp = fleet.attempt("n1", *words)
    assert udp.returncode and b"udp has none" in udp.stderr

    fleet.flota("n1", "rm", "-f", "box")
    fleet.flota("n1", "run", "-d", "--name", "next", "--node", "n3", "-p", "9000:80", IMAGE, *ECHO)
    wait_until(lambda: answer(fleet, "n3", 9000) == "hi\\n", deadline=10, what="the next one's answer")


def test_service_is_told_its_clients_by_every_hosts_port(clean: Fleet) -> None:
    fleet = clean
    publish = ("-p", "published=7443,target=80,proxy-protocol=v1")
    fleet.flota(
        "n1", "service", "create", "--name", "web", "--replicas", "2", *AT_ONCE, *publish, IMAGE, *WHO
    )
    wait_replicas(fleet, "web", 2)
    for host in ("n1", "n2", "n3"):

        def both(host: str = host) -> bool:
            words = [answer(fleet, host, 7443).split() for _ in range(4)]
            ok = all(w[1:5] == ["PROXY", "TCP4", OUTSIDE_ADDRESS, address_of(host)] for w in words)
            return ok and len({w[0] for w in words}) == 2

        wait_until(both, deadline=20, what=f"both replicas by {host}")
    assert "*:7443->80/tcp" in fleet.flota("n1", "service", "ls")
    fleet.flota("n3", "down")
    try:
        assert answer(fleet, "n3", 7443), "without an agent"
    finally:
        fleet.flota("n3", "agent", "--detach")
    fleet.wait_ready(3)
    assert answer(fleet, "n3", 7443), "the next agent closes nothing"
    fleet.flota("n1", "service", "scale", "web=1")
    wait_replicas(fleet, "web", 1)
    assert len({answer(fleet, "n1", 7443).split()[0] for _ in range(6)}) == 1, "one is left"
    fleet.flota("n1", "service", "update", "--publish-rm", "80", "web")
    wait_until(lambda: not answer(fleet, "n2", 7443), deadline=10, what="a closed port")
