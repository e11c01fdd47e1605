"""nft through libnftables in this process: blocking calls, all on one thread (contexts are not thread-safe).

libnftables 1.0.6 breaks off the JSON listing of a table that is switched off, so that is asked for first, by
netlink. No program is started and each script is one transaction: all of it or nothing. The context speaks
to the network namespace that its thread is in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import nftables

from model.errors import CommandFailed
from net import hostfirewall
from net.hostfirewall import NO_FIREWALL, HostFirewall
from net.kernel import nfnetlink
from net.nftscript import TABLE, parse_listing
from net.state import Family, NftTable

FAMILIES: Mapping[Family, int] = {"inet": nfnetlink.NFPROTO_INET, "bridge": nfnetlink.NFPROTO_BRIDGE}


class Nft:
    def __init__(self) -> None:
        self._context: Any = None

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
        if not _has_firewalld():
            return NO_FIREWALL
        code, output, _ = self._run(f"list table inet {hostfirewall.TABLE}", listing=True)
        return hostfirewall.heard(output if code == 0 else "", _has_firewalld)

    def close(self) -> None:
        self._context = None

    def _run(self, script: str, *, listing: bool) -> tuple[int, str, str]:
        if self._context is None:
            self._context = nftables.Nftables()
        self._context.set_json_output(listing)
        code, output, error = self._context.cmd(script)
        return int(code), str(output or ""), str(error or "")


def _has_firewalld() -> bool:
    with nfnetlink.connect() as link:
        return nfnetlink.has_table(link, nfnetlink.NFPROTO_INET, hostfirewall.TABLE)


def _dormant() -> list[Family]:
    with nfnetlink.connect() as link:
        return [f for f, number in FAMILIES.items() if nfnetlink.is_dormant(link, number, TABLE)]
