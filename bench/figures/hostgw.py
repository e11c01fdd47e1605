"""Hosts among each other: TCP over a host-gw network against routing by hand, and what many peers cost."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from bench.figures.overlay import container_pid
from bench.lanes import Lane, Stream
from bench.lanes import stream as bulk
from bench.namespaces import Program, inside, namespaces, run
from bench.peers import IMAGE
from bench.peershost import OWN, peers_of
from bench.stage import RIG, Stage
from bench.table import Figure, Samples, interval
from deploy.rig.netns import NetnsRig
from net.kernel.steering import OTHER_FLOWS, mask
from net.naming import vtep_mac

MANY, FEW = 1000, 100
HOST, OTHER, TOOLS = ("flpeers-" + n for n in ("many", "few", "tools"))
KINDS = {"plain": "routing by hand", "steered": "the same, steered"}
"""Of peers: routing made by hand."""


@contextmanager
def _ours(stage: Stage) -> Iterator[Lane]:
    fleet = stage.fleet
    fleet.flota("n1", "network", "create", "--driver", "host-gw", "benchgw")
    try:
        for host in ("n1", "n2"):
            words = ("--name", f"gw{host}", "--network", "benchgw", "--node", host, IMAGE, "sleep", "100000")
            fleet.flota("n1", "run", "-d", *words)
        client, server = (f"/proc/{container_pid(stage, f'gw{h}', h)}/ns/net" for h in ("n1", "n2"))
        (foot,) = fleet.json("inspect", "gwn2")[0]["status"]["endpoints"]
        yield Lane(client=client, server=server, address=foot["ipv4"])
    finally:
        for host in ("n1", "n2"):
            fleet.attempt("n1", "rm", "-f", f"gw{host}")
        fleet.flota("n1", "network", "rm", "benchgw")


Runs = Mapping[str, Sequence[Stream]]
_measured: dict[tuple[int, int], Runs] = {}


def _all(stage: Stage, runs: int) -> Runs:
    """All lanes by turns, once for all figures."""
    key = id(stage), runs
    if key not in _measured:
        with _ours(stage) as ours, _by_hand(stage) as by_hand:
            lanes = {"ours": ours, **by_hand}
            found: dict[str, list[Stream]] = {name: [] for name in lanes}
            for turn in range(-1, runs):
                for name, lane in lanes.items():
                    one = bulk(lane)
                    if turn >= 0:
                        found[name].append(one)
        _measured[key] = found
    return _measured[key]


def _against(peer: str, stage: Stage, runs: int) -> Samples:
    found = _all(stage, runs)
    ours, theirs = ([one.gigabits for one in found[name]] for name in ("ours", peer))
    low, high = interval([a / b for a, b in zip(ours, theirs, strict=True)])
    cost = [median(one.per_processor for one in found[name]) for name in ("ours", peer)]
    told = f"{cost[0]:.3g} Gbit per processor second, the peer {cost[1]:.3g}"
    note = f"95 % interval {low:.3g} to {high:.3g}; {told}"
    return Samples(ours=tuple(ours), peer=tuple(theirs), note=note)


@contextmanager
def _by_hand(stage: Stage) -> Iterator[dict[str, Lane]]:
    """Hosts on a switch like ours that route for a namespace behind each: plain `ip`, no bridge, no nft. One
    pair as the kernel makes its links, one steered as flota's are."""
    rig = NetnsRig(f"{RIG}g", disk=stage.folder / "hand-gw", run=Path(f"/run/flota-{RIG}g"))
    rig.down()
    guests = {kind: [f"{RIG}-g{kind}{index}" for index in (1, 2)] for kind in KINDS}
    try:
        rig.up(2 * len(KINDS))
        for order, kind in enumerate(KINDS):
            pair = rig.hosts[2 * order : 2 * order + 2]
            for index, (host, guest) in enumerate(zip(pair, guests[kind], strict=True), 1):
                run("ip", "netns", "add", guest)
                space = f"{rig.name}-{host.name}"
                _route_by_hand(space, guest, index, peer=pair[2 - index].address)
                if kind == "steered":
                    queue = "/sys/class/net/v0/queues/rx-0"
                    spread = f"echo {mask(os.cpu_count() or 1)} > {queue}/rps_cpus"
                    inside(space, "sh", "-c", f"{spread} && echo {OTHER_FLOWS} > {queue}/rps_flow_cnt")
        yield {
            kind: Lane(client=f"/run/netns/{one}", server=f"/run/netns/{two}", address="10.56.2.2")
            for kind, (one, two) in guests.items()
        }
    finally:
        for guest in (name for pair in guests.values() for name in pair):
            subprocess.run(["ip", "netns", "del", guest], check=False, capture_output=True)
        rig.down()


def _route_by_hand(host: str, guest: str, index: int, *, peer: str) -> None:
    inside(host, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    run("ip", "-n", host, "link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", guest)
    run("ip", "-n", host, "address", "add", f"10.56.{index}.1/24", "dev", "v0")
    run("ip", "-n", host, "link", "set", "v0", "up")
    run("ip", "-n", host, "route", "add", f"10.56.{3 - index}.0/24", "via", peer)
    run("ip", "-n", guest, "address", "add", f"10.56.{index}.2/24", "dev", "eth0")
    run("ip", "-n", guest, "link", "set", "eth0", "up")
    run("ip", "-n", guest, "route", "add", "default", "via", f"10.56.{index}.1")


def sync(stage: Stage, runs: int) -> Samples:
    """All peers of a routed overlay at once, against the tools that read the same from files."""
    routes, entries = stage.folder / "peers.ip", stage.folder / "peers.bridge"
    found = [(peer, block, vtep_mac(peer.host, 4242)) for peer, block in peers_of(MANY)]
    routes.write_text(
        "".join(
            f"neigh add {peer.address} lladdr {mac} dev vx0 nud permanent\n"
            f"route add {block} via {peer.address} dev vx0 onlink\n"
            for peer, block, mac in found
        )
    )
    entries.write_text(
        "".join(f"fdb add {mac} dev vx0 dst {peer.address} static\n" for peer, _, mac in found)
    )
    mine, theirs, messages = [], [], 0.0
    with namespaces(HOST, TOOLS), Program(HOST, "bench.peershost") as ours:
        for _ in range(runs):
            seconds, messages = ours.ask(f"sync {MANY}")
            mine.append(seconds * 1000)
            theirs.append(_by_tools(routes, entries) * 1000)
    note = f"{messages:g} changes of the kernel for {MANY} peers"
    return Samples(ours=tuple(mine), peer=tuple(theirs), note=note)


def _by_tools(routes: Path, entries: Path) -> float:
    words = ("id", "4242", "local", OWN, "dstport", "4789", "nolearning")
    run("ip", "-n", TOOLS, "link", "add", "vx0", "type", "vxlan", *words)
    run("ip", "-n", TOOLS, "link", "set", "vx0", "up")
    began = time.perf_counter()
    inside(TOOLS, "ip", "-batch", str(routes))
    inside(TOOLS, "bridge", "-batch", str(entries))
    took = time.perf_counter() - began
    run("ip", "-n", TOOLS, "link", "del", "vx0")
    return took


def change(stage: Stage, runs: int) -> Samples:
    """One peer's address is another: among many, against the same among few."""
    with (
        namespaces(HOST, OTHER),
        Program(HOST, "bench.peershost") as many,
        Program(OTHER, "bench.peershost") as few,
    ):
        many.ask(f"sync {MANY}")
        few.ask(f"sync {FEW}")
        pairs = [(many.ask("change"), few.ask("change")) for _ in range(runs)]
        looks = [median(side.ask("look")[0] for _ in range(3)) * 1000 for side in (many, few)]
    messages = {int(one[1]) for pair in pairs for one in pair}
    return Samples(
        ours=tuple(ours[0] * 1000 for ours, _ in pairs),
        peer=tuple(peer[0] * 1000 for _, peer in pairs),
        note=f"changes of the kernel, among few and many: {sorted(messages)}; a look at everything, which "
        f"follows each burst of changes: {looks[0]:.3g} ms among many, {looks[1]:.3g} among few",
    )


FIGURES: tuple[tuple[Figure, Callable[[Stage, int], Samples]], ...] = (
    *(
        (
            Figure(
                name="hostgw" if kind == "plain" else f"hostgw.{kind}",
                what="one TCP stream between containers on two hosts, host-gw network",
                unit="Gbit/s",
                goal=0.95,
                better="more",
                peer=called,
            ),
            partial(_against, kind),
        )
        for kind, called in KINDS.items()
    ),
    (
        Figure(
            name="peers.sync",
            what=f"a routed overlay's {MANY:,} peers, from none",
            unit="ms",
            goal=1.5,
            better="less",
            peer="ip -batch, bridge -batch",
        ),
        sync,
    ),
    (
        Figure(
            name="peers.change",
            what=f"another address of one of {MANY:,} peers",
            unit="ms",
            goal=3.0,
            better="less",
            peer=f"the same among {FEW}",
        ),
        change,
    ),
)
