"""A lane leads from one namespace to another by somebody's network: what TCP does on it, and at what cost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.namespaces import ROOT

SECONDS = "2"
"""Measured, after one that isn't counted."""
ATTEMPTS = 50
"""Until the server listens."""


@dataclass(frozen=True)
class Lane:
    """`client` and `server` are paths of network namespaces, `address` the server's."""

    client: str
    server: str
    address: str


@dataclass(frozen=True)
class Stream:
    gigabits: float
    """A second."""
    per_processor: float
    """Gbit for each second of a processor that the machine was busy with it."""


def stream(lane: Lane) -> Stream:
    """One TCP stream, cubic, client to server. Raises RuntimeError."""
    words = ["iperf3", "-J", "-C", "cubic", "-O", "1", "-t", SECONDS, "-c", lane.address]
    said = ""
    with _listening(lane, "iperf3", "-s"):
        for _ in range(ATTEMPTS):
            busy, began = _busy(), time.monotonic()
            said = _inside(lane.client, *words)
            spent, took = _busy() - busy, time.monotonic() - began
            ended = json.loads(said or "{}").get("end", {})
            if "sum_received" in ended:
                rate = float(ended["sum_received"]["bits_per_second"]) / 1e9
                return Stream(gigabits=rate, per_processor=rate * took / spent)
            time.sleep(0.05)
    raise RuntimeError(f"iperf3 to {lane.address}: {said[-300:]}")


def exchanges(lane: Lane) -> float:
    """Requests of a byte, each answered by a byte before the next is sent, a second. Raises RuntimeError."""
    program = [sys.executable, "-m", "bench.pingpong"]
    with _listening(lane, *program, "serve"):
        for _ in range(ATTEMPTS):
            said = _inside(lane.client, *program, lane.address)
            if said.strip():
                return float(said)
            time.sleep(0.05)
    raise RuntimeError(f"nobody answers at {lane.address}")


class _listening:
    def __init__(self, lane: Lane, *words: str) -> None:
        self._argv = ["nsenter", f"--net={lane.server}", *words]

    def __enter__(self) -> None:
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self._argv, stdout=quiet, stderr=quiet, cwd=ROOT)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _inside(namespace: str, *words: str) -> str:
    argv = ["nsenter", f"--net={namespace}", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT).stdout


def _busy() -> float:
    """Seconds that all processors have worked since the boot (proc_stat(5): user, nice, system, irq,
    softirq)."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / 100
