"""nft through libnftables in this process: one context, one thread (contexts are not thread-safe).

No program is started and each script is one transaction: all of it or nothing. The context speaks to the
network namespace in which its thread was started.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nftables

from model.errors import CommandFailed
from net.nftscript import TABLE, parse_listing
from net.state import Family, NftTable

FAMILIES: tuple[Family, ...] = ("inet", "bridge")


class Nft:
    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flota-nft")
        self._context: Any = None

    async def run(self, script: str) -> None:
        """One transaction. Raises CommandFailed with nft's own words; then nothing was changed."""
        code, _, error = await self._call(script, listing=False)
        if code != 0:
            first = next((line for line in error.splitlines() if line.strip()), "no reason given")
            raise CommandFailed(f"nft refused a change of table {TABLE}: {first.strip()[:300]}")

    async def tables(self) -> dict[Family, NftTable]:
        """Our tables as they stand; a family without one is left out."""
        found: dict[Family, NftTable] = {}
        for family in FAMILIES:
            code, output, _ = await self._call(f"list table {family} {TABLE}", listing=True)
            if code == 0:
                found[family] = parse_listing(json.loads(output))
        return found

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._forget)
        self._thread.shutdown(wait=False)

    async def _call(self, script: str, *, listing: bool) -> tuple[int, str, str]:
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, self._run, script, listing))

    def _run(self, script: str, listing: bool) -> tuple[int, str, str]:
        if self._context is None:
            self._context = nftables.Nftables()
        self._context.set_json_output(listing)
        code, output, error = self._context.cmd(script)
        return int(code), str(output or ""), str(error or "")

    def _forget(self) -> None:
        self._context = None
