"""Programs of this machine that rigs are made with, and what they say when they fail."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

FRESH = """cd /proc/sys/net; echo 0 >ipv4/ip_forward
for name in ip ip6 arp; do f=bridge/bridge-nf-call-${name}tables; test ! -e $f || echo 0 >$f; done"""


def as_fresh(netns: str) -> None:
    """As on a fresh Debian host, whatever this machine is, whose ip_forward a new namespace takes over. There
    br_netfilter is not loaded; where a kernel has it built in, each namespace begins with it switched on."""
    ip("netns", "exec", netns, "sh", "-ec", FRESH)


def ip(*argv: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *argv], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def checked(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[bytes]:
    if done.returncode:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()[-2000:]
        raise RuntimeError(f"{json.dumps(done.args)} ended with {done.returncode}: {words}")
    return done


def read_pid(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def wait_gone(pid: int, deadline: float = 10.0) -> None:
    end = time.monotonic() + deadline
    while pid and os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.005)
