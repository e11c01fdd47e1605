"""Bundles for the hosts of one run: each kind is made once, however many hosts ask for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from deploy.bundle import Bundle, Target, build, default_cache, release_name
from deploy.hostfacts import Facts


class BundleSource(Protocol):
    @property
    def release(self) -> str:
        """The name of what `bundle` makes."""
        ...

    async def bundle(self, facts: Facts, python: str) -> Bundle:
        """For a host with these facts, and the Python at that path."""
        ...

    def installer(self) -> bytes:
        """The program that installs it, for `python3 -`."""
        ...


class OwnBundles:
    """Of this very flota, from the cache or made."""

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache or default_cache()
        self._release = ""
        self._made: dict[Target, Bundle] = {}
        self._turns: dict[Target, asyncio.Lock] = {}

    @property
    def release(self) -> str:
        if not self._release:
            self._release = release_name()
        return self._release

    async def bundle(self, facts: Facts, python: str) -> Bundle:
        target = target_of(facts, python)
        async with self._turns.setdefault(target, asyncio.Lock()):
            if target not in self._made:
                self._made[target] = await asyncio.to_thread(build, target, self._cache)
        return self._made[target]

    def installer(self) -> bytes:
        return Path(__file__).with_name("installer.py").read_bytes()


def target_of(facts: Facts, python: str) -> Target:
    version = next(one.version for one in facts.pythons if one.path == python)
    return Target(
        python=".".join(map(str, version)),
        machine=facts.machine,
        libc="musl" if facts.libc == "musl" else "gnu",
    )
