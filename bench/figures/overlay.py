"""TCP through the overlays between two hosts, against a VXLAN made by hand: cubic, one MTU on both."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers import IMAGE
from bench.stage import Stage
from bench.table import Figure, Samples
from deploy.rig.netns import NetnsRig

SECONDS = "2"
"""Measured, after one that isn't counted."""
ATTEMPTS = 50
"""Until the server listens."""


def routed(stage: Stage, runs: int) -> Samples:
    return _compare(stage, runs, ())


def bridged(stage: Stage, runs: int) -> Samples:
    return _compare(stage, runs, ("--opt", "mode=bridged"))


def _compare(stage: Stage, runs: int, options: tuple[str, ...]) -> Samples:
    fleet = stage.fleet
    fleet.flota("n1", "network", "create", *options, "benchov")
    try:
        for host in ("n1", "n2"):
            words = ("--name", f"ov{host}", "--network", "benchov", "--node", host, IMAGE, "sleep", "100000")
            fleet.flota("n1", "run", "-d", *words)
        return _pairs(stage, runs)
    finally:
        for host in ("n1", "n2"):
            fleet.attempt("n1", "rm", "-f", f"ov{host}")
        fleet.flota("n1", "network", "rm", "benchov")


def _pairs(stage: Stage, runs: int) -> Samples:
    pids = {host: container_pid(stage, f"ov{host}", host) for host in ("n1", "n2")}
    spaces = {host: f"--net=/proc/{pid}/ns/net" for host, pid in pids.items()}
    address = stage.fleet.json("inspect", "ovn2")[0]["status"]["endpoints"][0]["ipv4"]
    mine, peer = [], []
    with _by_hand(stage) as (client, server, hand_address):
        for turn in range(-1, runs):
            a = _gigabits([spaces["n1"]], [spaces["n2"]], address)
            b = _gigabits([client], [server], hand_address)
            if turn >= 0:
                mine.append(a)
                peer.append(b)
    return Samples(ours=tuple(mine), peer=tuple(peer))


def container_pid(stage: Stage, name: str, host: str) -> int:
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
    words = ["nsenter", *client, "iperf3", "-J", "-C", "cubic", "-O", "1", "-t", SECONDS, "-c", address]
    listening = subprocess.Popen(
        ["nsenter", *server, "iperf3", "-s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    said = ""
    try:
        for _ in range(ATTEMPTS):
            said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
            ended = json.loads(said or "{}").get("end", {})
            if "sum_received" in ended:
                return float(ended["sum_received"]["bits_per_second"]) / 1e9
            time.sleep(0.05)
    finally:
        listening.kill()
        listening.wait()
    raise RuntimeError(f"iperf3 to {address}: {said[-300:]}")


@contextmanager
def _by_hand(stage: Stage) -> Iterator[tuple[str, str, str]]:
    """Two hosts on a switch like ours, a bridge and a VXLAN device in each, a namespace behind: plain
    `ip`."""
    rig = NetnsRig("bh", disk=stage.folder / "hand", run=Path("/run/flota-bh"))
    rig.down()
    guests = ("flbench-a", "flbench-b")
    try:
        rig.up(2)
        for index, (host, guest) in enumerate(zip(rig.hosts, guests, strict=True), 1):
            _ip("netns", "add", guest)
            peer = rig.hosts[2 - index].address
            _host_by_hand(f"bh-{host.name}", guest, index=index, own=host.address, peer=peer)
        yield f"--net=/run/netns/{guests[0]}", f"--net=/run/netns/{guests[1]}", "10.55.0.2"
    finally:
        for guest in guests:
            subprocess.run(["ip", "netns", "del", guest], check=False, capture_output=True)
        rig.down()


def _host_by_hand(host: str, guest: str, *, index: int, own: str, peer: str) -> None:
    _ip("-n", host, "link", "add", "vx0", "mtu", "1450", "type", "vxlan", "id", "77", "dstport", "4789",
        "local", own, "nolearning")  # fmt: skip
    _ip("-n", host, "link", "add", "br0", "type", "bridge")
    _ip("-n", host, "link", "set", "vx0", "master", "br0", "up")
    _ip("-n", host, "link", "set", "br0", "up")
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
        ),
        bridged,
    ),
)
