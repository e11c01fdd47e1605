"""A DHCP server on a link of a network namespace: dnsmasq, as sites run it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def serving_dhcp(
    netns: str, link: str, first: str, last: str, folder: Path, *, seconds: int = 3600, router: str = ""
) -> Iterator[Path]:
    """Leases of that range; yields the file in which they are written."""
    leases = folder / "leases"
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
    with open(folder / "dnsmasq.log", "wb") as output:
        process = subprocess.Popen(
            ["ip", "netns", "exec", netns, *words, "--log-dhcp", "--log-facility=-"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield leases
    finally:
        process.terminate()
        process.wait(10)
