"""TCP through the overlays between two hosts: against VXLAN made by hand, and against Swarm's overlay. Cubic,
one MTU on all.

All lanes are measured by turns, once for all figures: bulk, then a byte there and back.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median

from bench import hand
from bench.lanes import ATTEMPTS, Lane, Stream, exchanges, stream
from bench.peers import IMAGE
from bench.stage import Stage
from bench.table import Figure, Samples, interval
from deploy.rig.netns import NetnsRig

__all__ = ["ATTEMPTS", "FIGURES", "container_pid"]
MODES = ("routed", "bridged")
COMMAND = ("sleep", "100000")


@contextmanager
def _ours(stage: Stage, mode: str) -> Iterator[Lane]:
    fleet, network = stage.fleet, f"bench{mode}"
    fleet.flota("n1", "network", "create", "--opt", f"mode={mode}", network)
    names = {host: f"{mode}{host}" for host in ("n1", "n2")}
    try:
        for host, name in names.items():
            words = ("--name", name, "--network", network, "--node", host, IMAGE, *COMMAND)
            fleet.flota("n1", "run", "-d", *words)
        client, server = (f"/proc/{container_pid(stage, name, h)}/ns/net" for h, name in names.items())
        (foot,) = fleet.json("inspect", names["n2"])[0]["status"]["endpoints"]
        yield Lane(client=client, server=server, address=foot["ipv4"])
    finally:
        for name in names.values():
            fleet.attempt("n1", "rm", "-f", name)
        fleet.flota("n1", "network", "rm", network)


@contextmanager
def _swarm(stage: Stage) -> Iterator[Lane]:
    """Containers that were put on an attachable overlay by hand."""
    swarm = stage.swarm
    swarm.run("n1", "network", "create", "-d", "overlay", "--attachable", "benchlane")
    spaces = {}
    try:
        for host in ("n1", "n2"):
            words = ("--name", f"lane{host}", "--network", "benchlane", swarm.image_id, *COMMAND)
            swarm.run(host, "run", "-d", *words)
            said = swarm.run(host, "inspect", "-f", "{{.State.Pid}}", f"lane{host}").stdout.decode()
            spaces[host] = f"/proc/{_pid_outside(swarm.rig, host, int(said))}/ns/net"
        form = '{{(index .NetworkSettings.Networks "benchlane").IPAddress}}'
        address = swarm.run("n2", "inspect", "-f", form, "lanen2").stdout.decode().strip()
        yield Lane(client=spaces["n1"], server=spaces["n2"], address=address)
    finally:
        for host in ("n1", "n2"):
            swarm.run(host, "rm", "-f", f"lane{host}", check=False)
        swarm.run("n1", "network", "rm", "benchlane", check=False)


def container_pid(stage: Stage, name: str, host: str) -> int:
    """This machine's pid of a container's first process, by the one its host knows."""
    return _pid_outside(stage.fleet.rig, host, stage.fleet.json("inspect", name)[0]["status"]["pid"])


def _pid_outside(rig: NetnsRig, host: str, pid: int) -> int:
    words = ["readlink", f"/proc/{pid}/ns/net"]
    wanted = rig.exec(host, words).stdout.decode().strip()
    for candidate in rig.processes(host):
        found = subprocess.run(
            ["readlink", f"/proc/{candidate}/ns/net"], capture_output=True, text=True, check=False
        )
        if found.stdout.strip() == wanted:
            return candidate
    raise RuntimeError(f"no process in the namespace of {host}'s {pid} is seen on this machine")


Runs = Mapping[str, Sequence[tuple[Stream, float]]]
"""By lane; one of each turn."""
_measured: dict[tuple[int, int], Runs] = {}


def _all(stage: Stage, runs: int) -> Runs:
    key = id(stage), runs
    if key not in _measured:
        with (
            _ours(stage, "routed") as routed,
            _ours(stage, "bridged") as bridged,
            _swarm(stage) as swarm,
            hand.lanes(stage.folder / "hand", os.cpu_count() or 1) as by_hand,
        ):
            lanes = {"routed": routed, "bridged": bridged, "swarm": swarm, **by_hand}
            found: dict[str, list[tuple[Stream, float]]] = {name: [] for name in lanes}
            for _ in range(runs):
                for name, lane in lanes.items():
                    found[name].append((stream(lane), exchanges(lane)))
        _measured[key] = found
    return _measured[key]


def _bulk(mode: str, peer: str, stage: Stage, runs: int) -> Samples:
    found = _all(stage, runs)
    ours, theirs = ([one.gigabits for one, _ in found[name]] for name in (mode, peer))
    cost = [median(one.per_processor for one, _ in found[name]) for name in (mode, peer)]
    note = f"{cost[0]:.3g} Gbit per processor second, the peer {cost[1]:.3g}"
    return Samples(ours=tuple(ours), peer=tuple(theirs), note=f"{_interval(ours, theirs)}; {note}")


def _exchanged(mode: str, peer: str, stage: Stage, runs: int) -> Samples:
    found = _all(stage, runs)
    ours, theirs = ([rate for _, rate in found[name]] for name in (mode, peer))
    return Samples(ours=tuple(ours), peer=tuple(theirs), note=_interval(ours, theirs))


def _interval(ours: Sequence[float], theirs: Sequence[float]) -> str:
    low, high = interval([a / b for a, b in zip(ours, theirs, strict=True)])
    return f"95 % interval {low:.3g} to {high:.3g}"


PEERS = {
    "plain": ("", "VXLAN by hand", {"routed": 0.93, "bridged": 0.97}),
    "steered": (".steered", "the same, steered", {"routed": 0.93, "bridged": 0.97}),
    "swarm": (".swarm", "Swarm's overlay", {"routed": 1.0, "bridged": 1.0}),
}
"""Ends of the figures' names, peers and goals."""


def _figure(mode: str, peer: str, suffix: str, what: str, unit: str) -> Figure:
    end, called, goals = PEERS[peer]
    return Figure(
        name=f"overlay.{mode}{suffix}{end}",
        what=f"{what} between containers on two hosts, {mode} overlay",
        unit=unit,
        goal=goals[mode],
        better="more",
        peer=called,
    )


FIGURES = tuple(
    (_figure(mode, peer, suffix, what, unit), partial(measure, mode, peer))
    for measure, suffix, what, unit in (
        (_bulk, "", "one TCP stream", "Gbit/s"),
        (_exchanged, ".exchange", "a byte there and a byte back by TCP", "1/s"),
    )
    for mode in MODES
    for peer in PEERS
)
