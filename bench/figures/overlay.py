"""TCP through the overlays between two hosts, against a VXLAN made by hand: cubic, one MTU on both."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from bench.peers import IMAGE
from bench.stage import Stage
from bench.table import Figure, Samples

SECONDS = "2"
HAND = ("flbench-a", "flbench-b", "flbench-ca", "flbench-cb")


def routed(stage: Stage, runs: int) -> Samples:
    return _compare(stage, runs, ())


def bridged(stage: Stage, runs: int) -> Samples:
    return _compare(stage, runs, ("--opt", "mode=bridged"))


def _compare(stage: Stage, runs: int, options: tuple[str, ...]) -> Samples:
    fleet = stage.fleet
    fleet.flota("n1", "network", "create", *options, "benchov")
    for host in ("n1", "n2"):
        words = ("--name", f"ov{host}", "--network", "benchov", "--node", host, IMAGE, "sleep", "100000")
        fleet.flota("n1", "run", "-d", *words)
    pids = {host: _container_pid(stage, f"ov{host}", host) for host in ("n1", "n2")}
    server_address = fleet.json("ps")
    address = next(
        e["ipv4"] for i in server_address if i["instance"]["name"] == "ovn2" for e in i["status"]["endpoints"]
    )
    mine, peer = [], []
    with _by_hand() as (client, server, hand_address):
        for turn in range(-1, runs):
            a = _gigabits([f"--net=/proc/{pids['n1']}/ns/net"], [f"--net=/proc/{pids['n2']}/ns/net"], address)
            b = _gigabits([client], [server], hand_address)
            if turn >= 0:
                mine.append(a)
                peer.append(b)
    for host in ("n1", "n2"):
        fleet.flota("n1", "rm", "-f", f"ov{host}")
    fleet.flota("n1", "network", "rm", "benchov")
    return Samples(ours=tuple(mine), peer=tuple(peer))


def _container_pid(stage: Stage, name: str, host: str) -> int:
    """This machine's pid of a container's first process, by the one its host knows."""
    words = [
        "sh",
        "-c",
        'readlink "/proc/$1/ns/net"',
        "sh",
        stage.fleet.json("inspect", name)[0]["status"]["pid"],
    ]
    wanted = stage.fleet.rig.exec(host, [str(w) for w in words]).stdout.decode().strip()
    for pid in stage.fleet.rig.processes(host):
        found = subprocess.run(
            ["readlink", f"/proc/{pid}/ns/net"], capture_output=True, text=True, check=False
        )
        if found.stdout.strip() == wanted:
            return pid
    raise RuntimeError(f"no process of {name} is seen on this machine")


def _gigabits(client: list[str], server: list[str], address: str) -> float:
    listening = subprocess.Popen(
        ["nsenter", *server, "iperf3", "-s", "-1", "-J"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    words = ["nsenter", *client, "sh", "-c"]
    stream = f"iperf3 -J -C cubic -O 1 -t {SECONDS} -c {address}"
    retry = f"for i in $(seq 50); do {stream} && exit; sleep 0.05; done; exit 1"
    done = subprocess.run([*words, retry], capture_output=True, text=True, check=True)
    listening.wait(10)
    text = done.stdout[done.stdout.rindex('\n{\n\t"start"') if '\n{\n\t"start"' in done.stdout else 0 :]
    return float(json.loads(text)["end"]["sum_received"]["bits_per_second"]) / 1e9


@contextmanager
def _by_hand() -> Iterator[tuple[str, str, str]]:
    """Two namespaces as hosts, a bridge and a VXLAN device in each, a container namespace behind."""
    a, b, ca, cb = HAND
    try:
        for name in HAND:
            _ip("netns", "add", name)
        _ip("link", "add", "u0", "netns", a, "type", "veth", "peer", "name", "u0", "netns", b)
        for index, (host, guest) in enumerate(((a, ca), (b, cb)), 1):
            _host_by_hand(host, guest, index)
        yield f"--net=/run/netns/{ca}", f"--net=/run/netns/{cb}", "10.55.0.2"
    finally:
        for name in HAND:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _host_by_hand(host: str, guest: str, index: int) -> None:
    _ip("-n", host, "address", "add", f"10.54.0.{index}/24", "dev", "u0")
    _ip("-n", host, "link", "set", "u0", "up")
    _ip("-n", host, "link", "add", "vx0", "mtu", "1450", "type", "vxlan", "id", "77", "dstport", "4789",
        "local", f"10.54.0.{index}", "nolearning")  # fmt: skip
    _ip("-n", host, "link", "add", "br0", "type", "bridge")
    _ip("-n", host, "link", "set", "vx0", "master", "br0", "up")
    _ip("-n", host, "link", "set", "br0", "up")
    peer = f"10.54.0.{3 - index}"
    subprocess.run(
        ["bridge", "-n", host, "fdb", "append", "00:00:00:00:00:00", "dev", "vx0", "dst", peer], check=True
    )
    _ip("-n", host, "link", "add", "v0", "mtu", "1450", "type", "veth", "peer", "name", "eth0", "mtu", "1450",
        "netns", guest)  # fmt: skip
    _ip("-n", host, "link", "set", "v0", "master", "br0", "up")
    _ip("-n", guest, "address", "add", f"10.55.0.{index}/24", "dev", "eth0")
    _ip("-n", guest, "link", "set", "eth0", "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


FIGURES = (
    (
        Figure(
            name="overlay.routed",
            what="one TCP stream between containers on two hosts, routed overlay",
            unit="Gbit/s",
            goal=0.85,
            better="more",
            peer="VXLAN by hand",
            runs=10,
        ),
        routed,
    ),
    (
        Figure(
            name="overlay.bridged",
            what="one TCP stream between containers on two hosts, bridged overlay",
            unit="Gbit/s",
            goal=0.95,
            better="more",
            peer="VXLAN by hand",
            runs=10,
        ),
        bridged,
    ),
)
