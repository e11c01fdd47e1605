"""Encrypted overlays between two hosts: against wireguard-go made by hand, and beside the same without
encryption.

The limit is the plain routed overlay of the same run: what encryption costs is ours beside that. All lanes
are measured by turns, once for both figures.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.figures.overlay import container_pid
from bench.lanes import Lane, Stream, exchanges, stream
from bench.peers import IMAGE
from bench.stage import RIG, Stage
from bench.table import Figure, Samples, interval
from deploy.rig.netns import NetnsRig
from net.wireguard import keys

Runs = Mapping[str, Sequence[tuple[Stream, float]]]
"""By lane; one of each turn."""
_measured: dict[tuple[int, int], Runs] = {}


def bulk(stage: Stage, runs: int) -> Samples:
    found = _all(stage, runs)
    rates = {name: tuple(one.gigabits for one, _ in turns) for name, turns in found.items()}
    cost = {name: median(one.per_processor for one, _ in turns) for name, turns in found.items()}
    words = {"ours": "ours", "peer": "the peer", "limit": "plain"}
    per = ", ".join(f"{cost[name]:.3g} ({what})" for name, what in words.items())
    return _samples(rates, f"Gbit per processor second {per}")


def exchanged(stage: Stage, runs: int) -> Samples:
    found = _all(stage, runs)
    return _samples({name: tuple(rate for _, rate in turns) for name, turns in found.items()}, "")


def _samples(rates: Mapping[str, tuple[float, ...]], note: str) -> Samples:
    low, high = interval([a / b for a, b in zip(rates["ours"], rates["peer"], strict=True)])
    of_plain = median(a / b for a, b in zip(rates["ours"], rates["limit"], strict=True))
    words = (f"95 % interval {low:.3g} to {high:.3g}", f"{of_plain:.3g} of the plain overlay", note)
    return Samples(**rates, note="; ".join(filter(None, words)))


def _all(stage: Stage, runs: int) -> Runs:
    key = id(stage), runs
    if key not in _measured:
        with (
            _overlay(stage, "benchwg", "--opt", "encrypted") as ours,
            _by_hand(stage) as peer,
            _overlay(stage, "benchpl") as plain,
        ):
            lanes = {"ours": ours, "peer": peer, "limit": plain}
            found: dict[str, list[tuple[Stream, float]]] = {name: [] for name in lanes}
            for _ in range(runs):
                for name, lane in lanes.items():
                    found[name].append((stream(lane), exchanges(lane)))
        _measured[key] = found
    return _measured[key]


@contextmanager
def _overlay(stage: Stage, network: str, *options: str) -> Iterator[Lane]:
    fleet, names = stage.fleet, {host: f"{network}{host}" for host in ("n1", "n2")}
    fleet.flota("n1", "network", "create", *options, network)
    try:
        for host, name in names.items():
            words = ("--name", name, "--network", network, "--node", host, IMAGE, "sleep", "100000")
            fleet.flota("n1", "run", "-d", *words)
        client, server = (f"/proc/{container_pid(stage, name, h)}/ns/net" for h, name in names.items())
        (foot,) = fleet.json("inspect", names["n2"])[0]["status"]["endpoints"]
        yield Lane(client=client, server=server, address=foot["ipv4"])
    finally:
        for name in names.values():
            fleet.attempt("n1", "rm", "-f", name)
        fleet.flota("n1", "network", "rm", network)


@contextmanager
def _by_hand(stage: Stage) -> Iterator[Lane]:
    """Two hosts on a switch like ours, wireguard-go in each, a namespace behind that is routed."""
    rig = NetnsRig(f"{RIG}w", disk=stage.folder / "handwg", run=Path(f"/run/flota-{RIG}w"))
    rig.down()
    guests = [f"{RIG}-wg{index}" for index in (1, 2)]
    try:
        rig.up(2)
        files = [stage.folder / "handwg" / f"key{index}" for index in (1, 2)]
        public = [base64.b64decode(keys.make(file)).hex() for file in files]
        for index, (host, guest) in enumerate(zip(rig.hosts, guests, strict=True), 1):
            _ip("netns", "add", guest)
            _tunnel(rig, host.name, index, keys.read(files[index - 1]).hex(),
                    public[2 - index], rig.hosts[2 - index].address)  # fmt: skip
            _guest(f"{rig.name}-{host.name}", guest, index)
        spaces = [f"/run/netns/{guest}" for guest in guests]
        yield Lane(client=spaces[0], server=spaces[1], address="10.56.2.2")
    finally:
        for guest in guests:
            subprocess.run(["ip", "netns", "del", guest], check=False, capture_output=True)
        rig.down()


def _tunnel(rig: NetnsRig, name: str, index: int, private: str, other: str, peer: str) -> None:
    host = f"{rig.name}-{name}"
    rig.exec(name, ["wireguard-go", "wg0"])
    told = (
        f"set=1\nprivate_key={private}\nlisten_port=51820\npublic_key={other}\nendpoint={peer}:51820\n"
        f"replace_allowed_ips=true\nallowed_ip=10.56.{3 - index}.0/24\n\n"
    )
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('/var/run/wireguard/wg0.sock');"
        f"s.sendall({told!r}.encode()); sys.exit(s.recv(99) != b'errno=0\\n\\n')"
    )
    time.sleep(0.2)  # it listens a moment after it went to the background
    rig.exec(name, [sys.executable, "-c", script])
    _ip("-n", host, "link", "set", "wg0", "mtu", "1440", "up")
    _ip("-n", host, "route", "add", f"10.56.{3 - index}.0/24", "dev", "wg0")
    rig.exec(name, ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])


def _guest(host: str, guest: str, index: int) -> None:
    _ip("-n", host, "link", "add", "v0", "mtu", "1440", "type", "veth", "peer", "name", "eth0", "mtu", "1440",
        "netns", guest)  # fmt: skip
    _ip("-n", host, "address", "add", f"10.56.{index}.1/24", "dev", "v0")
    _ip("-n", host, "link", "set", "v0", "up")
    _ip("-n", guest, "address", "add", f"10.56.{index}.2/24", "dev", "eth0")
    _ip("-n", guest, "link", "set", "eth0", "up")
    _ip("-n", guest, "route", "add", "default", "via", f"10.56.{index}.1")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _figure(name: str, what: str, unit: str) -> Figure:
    return Figure(
        name=f"encrypted.{name}",
        what=f"{what} between containers on two hosts, encrypted by wireguard-go",
        unit=unit,
        goal=0.9,
        better="more",
        peer="wireguard-go by hand",
        limit="the same without encryption",
    )


FIGURES = (
    (_figure("stream", "one TCP stream", "Gbit/s"), bulk),
    (_figure("exchange", "a byte there and a byte back by TCP", "1/s"), exchanged),
)
