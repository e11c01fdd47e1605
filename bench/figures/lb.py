"""Service addresses: programming ten thousand, changing one among them, connecting by one of them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from bench import rulesets
from bench.namespaces import Program, inside, namespaces, run
from bench.stage import Stage
from bench.table import Figure, Samples

COUNT = 10_000
SECONDS = "1.5"
TARGET = rulesets.service(0).ipv4
HOST, NFT, IPTABLES = ("fllb-" + n for n in ("host", "nft", "ipt"))
LISTEN = """
import socket
s = socket.create_server(("0.0.0.0", 80), backlog=4096)
print("up", flush=True)
while True:
    c, _ = s.accept()
    c.close()
"""
CONNECT = """
import socket, struct, sys, time
target, seconds = (sys.argv[1], 80), float(sys.argv[2])
count, end = 0, time.perf_counter() + seconds
gone = struct.pack("ii", 1, 0)
while time.perf_counter() < end:
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, gone)
    s.connect(target)
    s.recv(1)
    s.close()
    count += 1
print(count / seconds)
"""


def program(stage: Stage, runs: int) -> Samples:
    """From nothing to all services; the peers' files are written before the clock starts."""
    with _sides(stage) as (ours, nft, iptables):
        mine, theirs = [], []
        for _ in range(runs):
            mine += ours.ask(f"program {COUNT}")
            theirs.append((_nft(nft), _restore(iptables)))
            inside(NFT, "nft", "flush", "ruleset")
            inside(IPTABLES, "nft", "flush", "ruleset")
    return _against(mine, theirs, "s", 1)


def change(stage: Stage, runs: int) -> Samples:
    """One service's members are replaced while all are there."""
    with _sides(stage) as (ours, nft, iptables):
        ours.ask(f"program {COUNT}")
        _nft(nft)
        _restore(iptables)
        mine, theirs = [], []
        for turn in range(1, runs + 1):
            nft.write_text(rulesets.nft_change(7, turn))
            iptables.write_text(rulesets.iptables_change(COUNT, 7, turn))
            mine.append(ours.ask("change")[0] * 1000)
            theirs.append((_nft(nft) * 1000, _restore(iptables, "--noflush") * 1000))
    return _against(mine, theirs, "ms", 5)


@contextlib.contextmanager
def _sides(stage: Stage) -> Iterator[tuple[Program, Path, Path]]:
    """Our host, and the files of both peers with all services in them."""
    nft, iptables = stage.folder / "lb.nft", stage.folder / "lb.iptables"
    nft.write_text(rulesets.nft(COUNT))
    iptables.write_text(rulesets.iptables(COUNT))
    with namespaces(HOST, NFT, IPTABLES), Program(HOST, "bench.lbhost") as ours:
        yield ours, nft, iptables


def connect(stage: Stage, runs: int) -> Samples:
    """A client's connections per second by an address among all, against the only address there is: two hosts
    alike, asked in turn, each first every other time."""
    found: dict[int, list[float]] = {COUNT: [], 1: []}
    with contextlib.ExitStack() as stack:
        sides = {count: stack.enter_context(_served(f"fllb{count}", count)) for count in found}
        for turn in range(-1, runs):
            for count in sorted(found, reverse=bool(turn % 2)):
                rate = float(inside(sides[count], sys.executable, "-c", CONNECT, TARGET, SECONDS))
                if turn >= 0:
                    found[count].append(rate)
    return Samples(ours=tuple(found[COUNT]), peer=tuple(found[1]))


@contextlib.contextmanager
def _served(name: str, count: int) -> Iterator[str]:
    """A host with so many services, the first of them with its members in a namespace beside it; the name of
    a client's."""
    host, client, server = (f"{name}-{part}" for part in ("host", "client", "server"))
    with namespaces(host, client, server), Program(host, "bench.lbhost") as ours:
        _wire(host, client, server)
        ours.ask(f"program {count}")
        argv = ["ip", "netns", "exec", server, sys.executable, "-u", "-c", LISTEN]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield client
            finally:
                process.kill()


def _wire(host: str, client: str, server: str) -> None:
    """Client and server behind links whose names say that containers are there; the server has the addresses
    of the first service's members."""
    inside(host, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    for number, name in enumerate((client, server), 1):
        link = f"flb{number}"
        run("ip", "-n", host, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "-n", host, "address", "add", f"10.9.{number}.1/24", "dev", link)
        run("ip", "-n", host, "link", "set", link, "up")
        run("ip", "-n", name, "address", "add", f"10.9.{number}.2/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "route", "add", "default", "via", f"10.9.{number}.1")
    for member in rulesets.service(0).members:
        run("ip", "-n", host, "route", "add", member.ipv4, "via", "10.9.2.2")
        run("ip", "-n", server, "address", "add", f"{member.ipv4}/32", "dev", "lo")


def _nft(path: Path) -> float:
    return _timed(NFT, "nft", "-f", str(path))


def _restore(path: Path, *options: str) -> float:
    return _timed(IPTABLES, "iptables-restore", *options, str(path))


def _timed(namespace: str, *words: str) -> float:
    began = time.perf_counter()
    inside(namespace, *words)
    return time.perf_counter() - began


def _against(mine: Sequence[float], theirs: Sequence[tuple[float, float]], unit: str, most: float) -> Samples:
    """The faster of both peers counts, pair by pair."""
    nft, iptables = (median(side) for side in zip(*theirs, strict=True))
    worst = max(mine)
    note = (
        f"nft -f {nft:.3g} {unit}, iptables-restore {iptables:.3g} {unit}; ours at worst {worst:.3g} {unit}"
    )
    verdict = "within" if median(mine) <= most else "beyond"
    peer = tuple(min(pair) for pair in theirs)
    return Samples(
        ours=tuple(mine), peer=peer, note=f"{note}; {verdict} the {most:g} {unit} that it may take"
    )


PEER = "kube-proxy style, the faster"
FIGURES = (
    (
        Figure(
            name="lb.program",
            what="10,000 services of two members, from nothing",
            unit="s",
            goal=0.2,
            better="less",
            peer=PEER,
            runs=3,
        ),
        program,
    ),
    (
        Figure(
            name="lb.change",
            what="other members for one of 10,000 services",
            unit="ms",
            goal=0.1,
            better="less",
            peer=PEER,
            runs=8,
        ),
        change,
    ),
    (
        Figure(
            name="lb.connect",
            what="TCP connections by a service's address, among 10,000",
            unit="1/s",
            goal=0.95,
            better="more",
            peer="the same with one service",
        ),
        connect,
    ),
)
