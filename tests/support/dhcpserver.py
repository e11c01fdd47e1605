"""A DHCP server on a link of a network namespace: dnsmasq, as sites run it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.waiting import wait_until


@contextlib.contextmanager
def serving_dhcp(
    netns: str, link: str, first: str, last: str, folder: Path, *, seconds: int = 3600, router: str = ""
) -> Iterator[Path]:
    """Leases of that range; yields the file in which they are written, once it listens: a client that asks
    before waits ever longer until it asks again."""
    leases, said = folder / "leases", folder / "dnsmasq.log"
    words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--user=root",
        "--no-ping",
    ]
    words += [f"--interface={link}", "--bind-interfaces", "--dhcp-authoritative"]
    words += [f"--dhcp-range={first},{last},{seconds}", f"--dhcp-leasefile={leases}", "--pid-file="]
    words += [f"--dhcp-option=3,{router}"] if router else []
    with open(said, "wb") as output:
        process = subprocess.Popen(
            ["ip", "netns", "exec", netns, *words, "--log-dhcp", "--log-facility=-"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: "DHCP, IP range" in said.read_text(), deadline=20, what="a DHCP server")
        yield leases
    finally:
        process.terminate()
        process.wait(30)
