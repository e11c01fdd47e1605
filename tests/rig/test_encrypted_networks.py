"""Encrypted networks of a real fleet: their keys change under load, their agents die, their hosts move."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

import pytest

from deploy.fleet import Fleet
from model.ids import NetworkId
from net.naming import wireguard_name
from tests.rig.conftest import IMAGE
from tests.rig.support import address, local_pid, on_host
from tests.support.pinging import Pinging
from tests.support.sniffing import sniffing
from tests.support.talkers import Talker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
PAYLOAD = b"in-plain-sight-0123456789"
STREAM = """
import socket, sys, time
where, end = sys.argv[1], time.monotonic() + 60
with socket.create_connection((where, 9000), 5) as s:
    s.settimeout(3)
    count = 0
    while time.monotonic() < end:
        s.sendall(b"%8d" % count)
        got = b""
        while len(got) < 8:
            got += (part := s.recv(8 - len(got))) or sys.exit("closed")
        assert got == b"%8d" % count
        count += 1
        print(count, flush=True)
        time.sleep(0.002)
"""
ECHO = """
import socket
listening = socket.create_server(("", 9000))
print("up", flush=True)
while True:
    connection, _ = listening.accept()
    with connection:
        while data := connection.recv(4096):
            connection.sendall(data)
"""


def started(fleet: Fleet, network: str, *hosts: str) -> dict[str, dict[str, Any]]:
    """A container that sleeps on each host, by host, all of which reach each other."""
    for host in hosts:
        fleet.flota("n1", "run", "-d", "--name", f"c{host}", "--network", network, "--node", host, IMAGE,
                    "sleep", "10000")  # fmt: skip
    found = {host: fleet.json("inspect", f"c{host}")[0] for host in hosts}
    for host in hosts:
        for other in hosts:
            target = address(found[other], network)
            wait_until(lambda h=host, t=target: reaches(fleet, found[h], h, t), deadline=10,
                       what=f"{host} reaches {other}")  # fmt: skip
    return found


def space(fleet: Fleet, info: dict[str, Any], host: str) -> str:
    return f"/proc/{local_pid(fleet, host, info['status']['pid'])}/ns/net"


def reaches(fleet: Fleet, info: dict[str, Any], host: str, target: str) -> bool:
    words = ["nsenter", f"--net={space(fleet, info, host)}", "busybox", "ping", "-c1", "-W1", target]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def ident_of(fleet: Fleet, network: str) -> NetworkId:
    return NetworkId(fleet.json("network", "ls", "--filter", f"name={network}")[0]["network"]["id"])


def keys_of(fleet: Fleet, network: str) -> dict[str, int]:
    found: dict[str, int] = fleet.json("network", "ls", "--filter", f"name={network}")[0]["network"]["keys"]
    return found


def test_keys_change_under_load_without_losing_a_stream_or_a_packet(clean: Fleet) -> None:
    clean.flota("n1", "network", "create", "--opt", "encrypted", "secret")
    found = started(clean, "secret", "n1", "n2", "n3")
    target, here = address(found["n2"], "secret"), space(clean, found["n1"], "n1")
    with ExitStack() as stack:
        stack.callback(Talker(space(clean, found["n2"], "n2"), ECHO).close)
        asking = subprocess.Popen(
            ["nsenter", f"--net={here}", sys.executable, "-c", STREAM, target], stdout=subprocess.PIPE
        )
        pinging = Pinging(here, target)
        try:
            for generation in (2, 3):
                clean.flota("n1", "network", "rotate-keys", "secret")
                done = dict.fromkeys(("oldest", "sending", "newest"), generation)
                wait_until(lambda d=done: keys_of(clean, "secret") == d, deadline=30, what=f"{generation}")
            refused = clean.attempt("n1", "network", "rotate-keys", "bridge")
            assert refused.returncode != 0 and b"not encrypted" in refused.stderr
            assert asking.poll() is None, "the stream has ended"
        finally:
            sent, lost = pinging.end()
            asking.kill()
            answered = len(asking.communicate()[0].splitlines())
    assert sent > 100 and lost == 0, f"{lost} of {sent} packets are lost"
    assert answered > 100
    ident = ident_of(clean, "secret")
    links = on_host(clean, "n1", "ip", "-o", "link")
    assert wireguard_name(ident, 3) in links and wireguard_name(ident, 1) not in links

    def kept() -> list[list[str]]:
        files = on_host(clean, "n1", "ls", "/var/lib/flota/agent/wireguard").split()
        return [name.split(".")[:2] for name in files]

    wait_until(lambda: kept() == [[ident, "3"]], deadline=10, what="the newest key alone")


def test_killed_agent_and_controller_leave_tunnels_alone_and_nothing_is_seen_on_the_link(
    clean: Fleet,
) -> None:
    clean.flota("n1", "network", "create", "--opt", "encrypted=true", "secret")
    found = started(clean, "secret", "n1", "n2")
    target = address(found["n2"], "secret")
    say = f"import socket; socket.socket(2, 2).sendto({PAYLOAD!r} * 9, ('{target}', 9999))"
    device = wireguard_name(ident_of(clean, "secret"), 1)
    with sniffing(f"{clean.rig.name}-n1", "eth0") as seen:
        for host in ("n1", "n2"):
            os.kill(clean.pid(host, "agent"), signal.SIGKILL)
        assert reaches(clean, found["n1"], "n1", target)
        subprocess.run(
            ["nsenter", f"--net={space(clean, found['n1'], 'n1')}", "python3", "-c", say], check=True
        )
        for host in ("n1", "n2"):
            clean.flota(host, "agent", "--detach")
        clean.wait_ready(3)
        on_host(clean, "n1", "ip", "link", "del", device)
        wait_until(lambda: reaches(clean, found["n1"], "n1", target), deadline=3, what="it is made again")
        subprocess.run(
            ["nsenter", f"--net={space(clean, found['n1'], 'n1')}", "python3", "-c", say], check=True
        )
        assert not seen.holds(PAYLOAD) and not seen.count(inner=target, udp_port=4789)
    facts = clean.json("node", "ls")[0]["host"]["facts"]
    assert facts["wireguard"] in ("kernel", "wireguard-go")
    wait_until(
        lambda: clean.attempt("n1", "network", "doctor").returncode == 0,
        deadline=10,
        what="the doctor finds no fault",
    )
