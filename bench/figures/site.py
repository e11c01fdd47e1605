"""TCP between containers on the site's own network (macvlan), on two hosts, against macvlan links made by
hand: cubic, one MTU on both, in turns."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.figures.overlay import container_pid
from bench.lanes import Lane, Stream, stream
from bench.peers import IMAGE
from bench.stage import RIG, Stage
from bench.table import Figure, Samples, interval
from deploy.rig.netns import NetnsRig

NETWORK = (
    "--driver",
    "macvlan",
    "--subnet",
    "10.56.0.0/24",
    "--gateway",
    "10.56.0.254",
    "--opt",
    "parent=eth0",
)
GUESTS = tuple(f"{RIG}-site{index}" for index in (1, 2))


def macvlan(stage: Stage, runs: int) -> Samples:
    fleet = stage.fleet
    fleet.flota("n1", "network", "create", *NETWORK, "benchsite")
    try:
        for host in ("n1", "n2"):
            words = (
                "--name",
                f"si{host}",
                "--network",
                "benchsite",
                "--node",
                host,
                IMAGE,
                "sleep",
                "100000",
            )
            fleet.flota("n1", "run", "-d", *words)
        return _pairs(stage, runs)
    finally:
        for host in ("n1", "n2"):
            fleet.attempt("n1", "rm", "-f", f"si{host}")
        fleet.flota("n1", "network", "rm", "benchsite")


def _pairs(stage: Stage, runs: int) -> Samples:
    pids = (container_pid(stage, f"si{host}", host) for host in ("n1", "n2"))
    client, server = (f"/proc/{pid}/ns/net" for pid in pids)
    (foot,) = stage.fleet.json("inspect", "sin2")[0]["status"]["endpoints"]
    mine, peer = list[Stream](), list[Stream]()
    with _by_hand(stage) as by_hand:
        ours = Lane(client=client, server=server, address=foot["ipv4"])
        for turn in range(-1, runs):
            a, b = stream(ours), stream(by_hand)
            if turn >= 0:
                mine.append(a)
                peer.append(b)
    low, high = interval([a.gigabits / b.gigabits for a, b in zip(mine, peer, strict=True)])
    cost = [median(one.per_processor for one in found) for found in (mine, peer)]
    told = f"{cost[0]:.3g} Gbit per processor second, the peer {cost[1]:.3g}"
    note = f"95 % interval {low:.3g} to {high:.3g}; {told}"
    return Samples(
        ours=tuple(one.gigabits for one in mine), peer=tuple(one.gigabits for one in peer), note=note
    )


@contextmanager
def _by_hand(stage: Stage) -> Iterator[Lane]:
    """Two hosts on a switch like ours, a macvlan link of each in a namespace: plain `ip`."""
    rig = NetnsRig(f"{RIG}h", disk=stage.folder / "hand", run=Path(f"/run/flota-{RIG}h"))
    rig.down()
    try:
        rig.up(2)
        for index, (host, guest) in enumerate(zip(rig.hosts, GUESTS, strict=True), 1):
            _ip("netns", "add", guest)
            _ip("-n", f"{RIG}h-{host.name}", "link", "add", "mv0", "link", "eth0", "netns", guest,
                "type", "macvlan", "mode", "bridge")  # fmt: skip
            _ip("-n", guest, "address", "add", f"10.55.0.{index}/24", "dev", "mv0")
            _ip("-n", guest, "link", "set", "mv0", "up")
        client, server = (f"/run/netns/{guest}" for guest in GUESTS)
        yield Lane(client=client, server=server, address="10.55.0.2")
    finally:
        for guest in GUESTS:
            subprocess.run(["ip", "netns", "del", guest], check=False, capture_output=True)
        rig.down()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


FIGURES = (
    (
        Figure(
            name="site.macvlan",
            what="one TCP stream between containers on two hosts, macvlan",
            unit="Gbit/s",
            goal=0.95,
            better="more",
            peer="macvlan by hand",
        ),
        macvlan,
    ),
)
