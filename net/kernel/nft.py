"""nft through libnftables in this process: blocking calls, all on one thread (contexts are not thread-safe).

libnftables 1.0.6 breaks off the JSON listing of a table that is switched off, so that is asked for first, by
netlink. No program is started and each script is one transaction: all of it or nothing. The context speaks
to the network namespace that its thread is in.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nftables
from msgspec.structs import replace

from model.errors import CommandFailed
from net import hostfirewall
from net.hostfirewall import NO_FIREWALL, HostFirewall
from net.kernel import chains, nfnetlink
from net.nftscript import TABLE, parse_listing
from net.servicechains import TABLE as SERVICE_TABLE
from net.state import Family, NftTable

FAMILIES: Mapping[Family, int] = {
    "inet": nfnetlink.NFPROTO_INET,
    "bridge": nfnetlink.NFPROTO_BRIDGE,
    "netdev": nfnetlink.NFPROTO_NETDEV,
}
_OLDER = ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")
"""Of iptables before nft: names of the tables that there are (iptables(8))."""
_TRIAL = """table netdev flota-trial {
  map gates { type ipv6_addr : ipv6_addr; flags interval; }
  map homes { type ipv6_addr : verdict; }
  chain in {
    meta length 1501-9216 meta l4proto != tcp accept
    fwd ip6 to ip6 daddr device "lo"
  }
  chain enter {
    type filter hook ingress device "lo" priority 0;
    meta pkttype host ether type ip6 ip6 hoplimit > 1 ip6 daddr vmap @homes
    fwd ip6 to ip6 daddr map @gates device "lo"
  }
}
delete table netdev flota-trial"""
"""Comes and goes in one transaction, with all that `net.shortcuts` asks of a kernel."""


class Nft:
    def __init__(self) -> None:
        self._context: Any = None
        self._shortens: bool | None = None
        """Whether the kernel knows what `net.shortcuts` needs; None: not tried yet."""

    def run(self, script: str) -> None:
        """One transaction. Raises CommandFailed with nft's own words; then nothing was changed."""
        code, _, error = self._run(script, listing=False)
        if code != 0:
            first = next((line for line in error.splitlines() if line.strip()), "no reason given")
            raise CommandFailed(f"nft refused a change of table {TABLE}: {first.strip()[:300]}")

    def tables(self) -> dict[Family, NftTable]:
        """Our tables as they stand; a family without one is left out."""
        found: dict[Family, NftTable] = {}
        for family in _dormant():
            found[family] = NftTable(dormant=True)
        for family in FAMILIES.keys() - found.keys():
            code, output, _ = self._run(f"list table {family} {TABLE}", listing=True)
            if code == 0:
                found[family] = parse_listing(json.loads(output))
        return found

    def host_firewall(self) -> HostFirewall:
        """Costs next to nothing on hosts without firewalld's table."""
        alone = self._can_shorten() and not _filtered()
        if not _has_firewalld():
            return replace(NO_FIREWALL, alone=alone)
        code, output, _ = self._run(f"list table inet {hostfirewall.TABLE}", listing=True)
        return hostfirewall.heard(output if code == 0 else "", _has_firewalld)

    def _can_shorten(self) -> bool:
        if self._shortens is None:
            self._shortens = self._run(_TRIAL, listing=False)[0] == 0
        return self._shortens

    def close(self) -> None:
        self._context = None

    def _run(self, script: str, *, listing: bool) -> tuple[int, str, str]:
        if self._context is None:
            self._context = nftables.Nftables()
        self._context.set_json_output(listing)
        code, output, error = self._context.cmd(script)
        return int(code), str(output or ""), str(error or "")


def _filtered() -> bool:
    """Whether others' rules are asked of what passes this host."""
    for path in _OLDER:
        with contextlib.suppress(OSError):
            if set(Path(path).read_text(encoding="ascii").split()) - {"nat"}:
                return True
    with nfnetlink.connect() as link:
        return bool(chains.filtered_by(link, (TABLE, SERVICE_TABLE)))


def _has_firewalld() -> bool:
    with nfnetlink.connect() as link:
        return nfnetlink.has_table(link, nfnetlink.NFPROTO_INET, hostfirewall.TABLE)


def _dormant() -> list[Family]:
    with nfnetlink.connect() as link:
        return [f for f, number in FAMILIES.items() if nfnetlink.is_dormant(link, number, TABLE)]
