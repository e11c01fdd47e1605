"""What a DHCP client (busybox's udhcpc) is started with, and what it says it was given (RFC 2131). Pure.

The client may not change anything: its script writes what it was told to a file. That comes from whoever
answers on the site's network, so only addresses are taken from it, and only those that are some.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from model.spec import Struct

USER = 61055
"""User and group of the clients, next to those of `net.supervise.drop`."""
LEASE, SCRIPT, CLIENT, LOG = "told/lease", "script", "client", "log"
"""Files of an endpoint's folder: what was given (in a folder that is the client's own), what writes that, who
runs, what it says."""
MOST = 1 << 14
SCRIPT_TEXT = """#!/bin/sh
# What the client was told, for the agent. "deconfig" comes at its start too, when nothing was lost.
case "$1" in
bound|renew) ;;
deconfig) grep -qx "client=$PPID" "$FLOTA_LEASE" 2>/dev/null || exit 0 ;;
*) exit 0 ;;
esac
printf '%s=%s\\n' event "$1" client "$PPID" ip "$ip" mask "$mask" router "$router" dns "$dns" \\
    serverid "$serverid" lease "$lease" > "$FLOTA_LEASE.new" && mv "$FLOTA_LEASE.new" "$FLOTA_LEASE"
"""


class Lease(Struct):
    """`address` empty: the server took it back, or it ran out."""

    address: str
    router: str = ""
    dns: tuple[str, ...] = ()
    server: str = ""
    seconds: int = 0


def parse(data: bytes) -> Lease:
    """Raises ValueError for what is no lease."""
    if len(data) > MOST:
        raise ValueError(f"a lease of more than {MOST} bytes")
    lines = data.decode("ascii", errors="replace").splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    if found.get("event") == "deconfig":
        return Lease(address="")
    address = ipaddress.IPv4Address(found.get("ip", ""))
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise ValueError(f"{address} is no host's address")
    seconds = found.get("lease", "")
    return Lease(
        address=str(address),
        router=next(iter(_addresses(found.get("router", ""))), ""),
        dns=tuple(_addresses(found.get("dns", "")))[:3],
        server=next(iter(_addresses(found.get("serverid", ""))), ""),
        seconds=int(seconds) if seconds.isascii() and seconds.isdigit() and len(seconds) < 11 else 0,
    )


def argv(
    program: Sequence[str], namespace: str, link: str, folder: str, *, before: str, name: str
) -> list[str]:
    """A client in that network namespace, as a user that owns nothing, with the right to raw packets and to
    its port alone. It asks for the address it had `before`, if any, and goes on asking until it has one."""
    words = [f"--net={namespace}", "--", "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    rights = "-all,+net_raw,+net_bind_service"
    words += [
        f"--inh-caps={rights}",
        f"--ambient-caps={rights}",
        f"--bounding-set={rights}",
        "--no-new-privs",
    ]
    words += ["--", *program, "-f", "-i", link, "-s", f"{folder}/{SCRIPT}", "-t", "4", "-T", "1", "-A", "2"]
    words += ["-o", "-O", "subnet", "-O", "router", "-O", "dns", "-x", f"hostname:{name}"]
    return ["nsenter", *words, *(("-r", before) if before else ())]


def _addresses(text: str) -> list[str]:
    """Those of the words that are addresses."""
    found = []
    for word in text.split():
        try:
            found.append(str(ipaddress.IPv4Address(word)))
        except ValueError:
            continue
    return found
