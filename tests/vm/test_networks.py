"""Every kind of network between guests with kernels of their own: IPv4, IPv6 × TCP, UDP, ICMP, a mebibyte."""

from __future__ import annotations

import json
import shlex

import pytest

from deploy.vmfleet import VmFleet
from tests.rig.test_overlay_table import BLOB_PORT, GIVER, KINDS, WHOLE
from tests.support.talkers import PORT, SERVER
from tests.support.waiting import wait_until
from tests.vm.support import container, inside, on, states, status, tried

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]
WAYS = {"same host": "n1", "other host": "n2"}
SITE = ("--subnet", "10.78.0.0/24", "--gateway", "10.78.0.1", "--ip-range", "10.78.0.128/25")
VLAN = ("--subnet", "10.79.0.0/24", "--gateway", "10.79.0.1", "--ip-range", "10.79.0.128/25")
SITES = {
    "macvlan": ("--driver", "macvlan", *SITE, "--opt", "parent=eth1"),
    "ipvlan": ("--driver", "ipvlan", *SITE, "--opt", "parent=eth1"),
    "vlan": ("--driver", "macvlan", *VLAN, "--opt", "parent=eth1.79"),
}
PROBE = """
import hashlib, json, socket, subprocess, sys
def ask(kind, target):
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as s:
        s.settimeout(10); s.connect((target, PORT))
        if kind == "udp": s.send(b"?")
        return s.recv(99).decode().split()[0]
def take(target):
    with socket.create_connection((target, BLOB), 10) as s:
        data = b"".join(iter(lambda: s.recv(65536), b""))
    return "%d %s" % (len(data), hashlib.sha256(data).hexdigest())
wanted, failed = json.loads(sys.argv[1]), []
for name, target in wanted:
    for what, is_so in (("tcp", lambda: ask("tcp", target) == name),
                        ("udp", lambda: ask("udp", target) == name),
                        ("mebibyte", lambda: take(target) == sys.argv[2]),
                        ("icmp", lambda: not subprocess.call(["ping", "-c1", "-W5", target], stdout=2))):
        try:
            if not is_so(): failed.append([what, name, target])
        except OSError as error: failed.append([what, name, target, str(error)])
print(json.dumps(failed))
""".replace("PORT", str(PORT)).replace("BLOB", str(BLOB_PORT))
SCTP_SERVER = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP) as s:
    s.bind(("", 9001)); s.listen()
    while True:
        connection, _ = s.accept()
        with connection: connection.sendall(b"here\\n")
"""
SCTP_CLIENT = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP) as s:
    s.settimeout(10); s.connect((sys.argv[1], 9000)); print(s.recv(99).decode().strip())
"""


def serve(fleet: VmFleet, host: str, name: str) -> None:
    """The servers of tests.support.talkers in a container's namespace, as programs of the guest's."""
    pid = status(fleet, name)["pid"]
    for number, code in enumerate((SERVER, GIVER)):
        words = shlex.join(["nsenter", "-t", str(pid), "-n", "python3", "-c", code, host, str(PORT)])
        on(fleet.rig, host, f"systemd-run -q --unit {name}-{number} {words}")


def failures(fleet: VmFleet, network: str, ways: dict[str, str]) -> list[list[str]]:
    """Who is not reached by what, from a container on n1 to one on each host."""
    container(fleet, "client", "n1", "--network", network)
    wanted = []
    for host in ways.values():
        name = f"server-{host}"
        container(fleet, name, host, "--network", network)
        serve(fleet, host, name)
        foot = status(fleet, name)["endpoints"][0]
        wanted += [(host, address) for address in (foot["ipv4"], foot.get("ipv6")) if address]
    pid = status(fleet, "client")["pid"]
    words = ["nsenter", "-t", str(pid), "-n", "python3", "-c", PROBE, json.dumps(wanted), WHOLE]

    def found() -> list[list[str]]:
        done = fleet.rig.exec("n1", words)
        return list(json.loads(done.stdout))

    last: list[list[str]] = []

    def passes() -> bool:
        last[:] = found()
        return not last

    try:
        wait_until(passes, deadline=60, what=f"all ways of {network}", pause=1)
    except AssertionError:
        return last
    return []


@pytest.mark.parametrize("kind", [
    pytest.param(kind, marks=() if kind == "encrypted" else pytest.mark.slow) for kind in KINDS
])  # fmt: skip
def test_all_traffic_passes_between_containers_of_guests(fleet: VmFleet, kind: str) -> None:
    fleet.ask("network", "create", "--ipv6", *KINDS[kind], kind)
    assert failures(fleet, kind, WAYS) == []
    if kind == "encrypted":
        assert on(fleet.rig, "n1", "ip -br link show type wireguard").strip()
        assert "wireguard-go" not in on(fleet.rig, "n1", "ps -eo args")


@pytest.mark.slow
@pytest.mark.parametrize("kind", SITES)
def test_containers_stand_on_the_sites_own_network(fleet: VmFleet, kind: str) -> None:
    fleet.ask("network", "create", *SITES[kind], kind)
    assert failures(fleet, kind, WAYS) == []


@pytest.mark.slow
def test_a_published_sctp_port_answers_on_its_host(fleet: VmFleet) -> None:
    on(fleet.rig, "n1", "modprobe sctp")
    on(fleet.rig, "n2", "modprobe sctp")
    container(fleet, "server", "n2", "-p", "9000:9001/sctp")
    pid = status(fleet, "server")["pid"]
    words = shlex.join(["nsenter", "-t", str(pid), "-n", "python3", "-c", SCTP_SERVER])
    on(fleet.rig, "n2", f"systemd-run -q --unit sctp {words}")
    ask = shlex.join(["python3", "-c", SCTP_CLIENT, "10.78.0.12"])
    wait_until(
        lambda: tried(fleet.rig, "n1", ask).stdout.strip() == b"here", deadline=60, what="SCTP", pause=1
    )


@pytest.mark.slow
def test_a_link_that_delays_and_loses_makes_nobody_flap(fleet: VmFleet) -> None:
    """1 % lost and 20 ms of delay, for half a minute: nobody is found lost, and who asks is answered."""
    for host in ("n1", "n2", "n3"):
        on(fleet.rig, host, "modprobe sch_netem; tc qdisc replace dev eth1 root netem delay 20ms 5ms loss 1%")
    seen = set()
    for _ in range(15):
        on(fleet.rig, "n1", "sleep 2")
        seen |= set(states(fleet).values())
    lost = fleet.json("events", "--since", "1h", "--until", "0s", "-f", "type=node", "-f", "event=lost")
    assert "lost" not in seen and lost == []
    container(fleet, "late", "n3")
    assert inside(fleet, "late", "echo here").strip() == "here"
