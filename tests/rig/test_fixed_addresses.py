"""Addresses that follow: to other hosts when theirs is lost, by hand, and through an update."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.support import address, local_pid, on_host, replicas, wait_replicas
from tests.support.talkers import answers, server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
SERVE = ("sh", "-c", "mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www")
MOST_GAP = 10.0
"""Seconds: 3 of silence until the host is lost, and a start on a busy machine."""
CLIENT = """
import socket, sys, time
target, last, worst, names = sys.argv[1], time.monotonic(), 0.0, []
end = last + 40
while time.monotonic() < end:
    try:
        with socket.create_connection((target, 80), timeout=0.2) as s:
            s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            data = b"".join(iter(lambda: s.recv(65536), b""))
        head, _, page = data.partition(b"\\r\\n\\r\\n")
        if b"200 OK" not in head or not page.endswith(b"\\n"): raise OSError("cut short")
    except OSError:
        time.sleep(0.01)
        continue
    now, name = time.monotonic(), page.decode().strip()
    worst, last = max(worst, now - last), now
    if name not in names:
        names.append(name)
        if len(names) == 1: print("up", flush=True)
        else: end = now + 0.5
print(*names, "%.2f" % worst, flush=True)
"""
"""Ends soon after a second one has answered; prints who answered, and the longest time without an answer."""


def space(fleet: Fleet, info: dict[str, Any]) -> str:
    return f"/proc/{local_pid(fleet, info['host_name'], info['status']['pid'])}/ns/net"


def one(fleet: Fleet, name: str) -> dict[str, Any]:
    return fleet.json("inspect", name)[0]


def test_an_address_in_another_hosts_share_is_given_up_there_first(clean: Fleet) -> None:
    clean.flota("n1", "network", "create", "--subnet", "10.78.0.0/24", "--ipv6", "back")
    for host in ("n1", "n2"):
        clean.flota("n1", "run", "-d", "--name", f"c{host}", "--node", host, "--network", "back", IMAGE,
                    "sleep", "9999")  # fmt: skip
    usage = json.loads(clean.flota("n1", "network", "inspect", "back"))[0]["usage"]
    assert {u["host"] for u in usage} == {"n1", "n2"}
    taken = address(one(clean, "cn1"), "back")
    words = ("run", "-d", "--node", "n3", "--network")
    refused = clean.attempt("n1", *words, f"name=back,ip={taken}", IMAGE, "sleep", "9999")
    assert refused.returncode and b"belongs to cn1" in refused.stderr
    wanted = taken[: taken.rindex(".")] + f".{int(taken.rpartition('.')[2]) + 5}"
    for name, host in (("moving", "n3"), ("moved", "n2")):
        clean.flota("n1", "run", "-d", "--name", name, "--node", host, "--network", f"name=back,ip={wanted}",
                    IMAGE, "sleep", "9999")  # fmt: skip
        info = one(clean, name)
        assert address(info, "back") == wanted
        served = server(space(clean, info), name)
        for asking in ("cn1", "cn2"):
            inside = space(clean, one(clean, asking))
            wait_until(
                lambda s=inside, n=name: answers(s, "tcp", [wanted])[0][0] == n,
                deadline=10,
                what=f"{name} to answer {asking}",
            )
        served.close()
        found = on_host(clean, "n1", "ip", "route", "get", wanted)
        assert re.search(r" dev flx", found), found
        clean.flota("n1", "rm", "-f", name)
    clean.flota("n1", "rm", "-f", "cn1")
    usage = json.loads(clean.flota("n1", "network", "inspect", "back"))[0]["usage"]
    own = [u for u in usage if u["host"] == "n1" and not u.get("fixed")]
    assert [(u["used"], u.get("resting"), u.get("leaked", 0)) for u in own] == [(0, 1, 0)] * 2, usage


def test_replicas_keep_their_addresses_through_an_update_and_a_move(clean: Fleet) -> None:
    clean.flota("n1", "network", "create", "--ipv6", "back")
    clean.flota("n1", "service", "create", "--name", "web", "--replicas", "3", "--stop-signal", "KILL",
                "--network", "name=back,ip=keep", IMAGE, "sleep", "9999")  # fmt: skip

    def addresses() -> dict[int, tuple[str, str]]:
        found = {}
        for info in replicas(clean, "web"):
            (foot,) = info["status"]["endpoints"]
            found[info["instance"]["slot"]] = (foot["ipv4"], foot["ipv6"])
        return found

    wait_replicas(clean, "web", 3)
    before = addresses()
    assert len({a for pair in before.values() for a in pair if a}) == 6
    clean.flota("n1", "service", "update", "--env-add", "A=1", "--update-parallelism", "3", "web")
    wait_until(
        lambda: (
            {r["instance"]["generation"] for r in replicas(clean, "web")} == {2} and addresses() == before
        ),
        deadline=30,
        what="three new replicas with the old addresses",
    )
    clean.flota("n1", "node", "update", "--availability", "drain", "n2")
    try:
        wait_until(
            lambda: addresses() == before and all(r["host_name"] != "n2" for r in replicas(clean, "web")),
            deadline=30,
            what="the replica of n2 elsewhere with its address",
        )
    finally:
        clean.flota("n1", "node", "update", "--availability", "active", "n2")


@pytest.mark.parametrize("mode", ["routed", "bridged"])
def test_a_replica_of_a_lost_host_comes_back_elsewhere_with_its_address(clean: Fleet, mode: str) -> None:
    """Last in the module: nothing new is placed for a while on a host that came and went."""
    clean.flota("n1", "network", "create", "--subnet", "10.77.0.0/24", "--opt", f"mode={mode}", "back")
    clean.flota("n1", "run", "-d", "--name", "client", "--node", "n1", "--network", "back", IMAGE,
                "sleep", "9999")  # fmt: skip
    clean.flota("n1", "service", "create", "--name", "db", "--constraint", "node.hostname!=n1",
                "--network", "name=back,ip=10.77.0.200", IMAGE, *SERVE)  # fmt: skip
    (first,) = wait_replicas(clean, "db", 1)
    assert address(first, "back") == "10.77.0.200"
    lost = first["host_name"]
    inside = space(clean, one(clean, "client"))
    argv = ["nsenter", f"--net={inside}", sys.executable, "-c", CLIENT, "10.77.0.200"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout is not None and client.stdout.readline() == "up\n"
            clean.rig.crash(lost)
            said = client.stdout.readline().split()
            (second,) = wait_replicas(clean, "db", 1)
        finally:
            client.kill()
            clean.rig.boot(lost)
            clean.flota(lost, "agent", "--detach")
    assert second["host_name"] not in ("n1", lost) and address(second, "back") == "10.77.0.200"
    assert len(said) == 3 and float(said[-1]) < MOST_GAP, said
    print(f"{mode}: the longest gap between two answers was {said[-1]} s")
    clean.wait_ready(3)
    (again,) = wait_replicas(clean, "db", 1)
    assert again["instance"]["id"] == second["instance"]["id"]
