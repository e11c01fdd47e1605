"""The table of services in memory, for `net.kernel.fake`: it refuses what the kernel would."""

from __future__ import annotations

import re
from collections.abc import Sequence

from model.errors import CommandFailed
from net.kernel.base import SeenServices
from net.loadbalance import SETS, VERDICTS, ElementChange, Elements, Flow

_RULE = re.compile(r'add rule inet flota_services (\S+) .* comment "(.*)"')


class FakeServices:
    """`chains` and `elements` stand in the kernel; a test that changes them as a stranger sets `others`."""

    def __init__(self) -> None:
        self.chains: dict[str, tuple[str, ...]] = {}
        self.elements: Elements = {}
        self.forgotten: list[Flow] = []
        self.connected: frozenset[bytes] = frozenset()
        self.others = True

    def script(self, text: str) -> None:
        for line in text.splitlines():
            if line.startswith("delete table"):
                self.chains, self.elements = {}, {}
                continue
            if line.startswith("add table"):
                for name in SETS:
                    self.elements.setdefault(name, {})
            elif line.startswith("flush chain"):
                self.chains[line.split(" ")[-1]] = ()
            elif match := _RULE.fullmatch(line):
                self.chains[match[1]] = (*self.chains.get(match[1], ()), match[2])

    def observe(self) -> SeenServices:
        self.others = False
        chains = {name: comments for name, comments in self.chains.items() if comments}
        return SeenServices(chains=chains, elements={name: dict(e) for name, e in self.elements.items()})

    def change(self, change: ElementChange) -> None:
        after = {name: dict(elements) for name, elements in self.elements.items()}
        for name, keys in change.gone.items():
            for key in keys:
                if name not in after or after[name].pop(key, None) is None:
                    raise CommandFailed(f"the kernel refused a change of services: no element in {name}")
        for name, found in change.new.items():
            if name not in after:
                raise CommandFailed("the kernel refused a change of services: no such set")
            for key, data in found.items():
                if after[name].setdefault(key, data) != data:
                    raise CommandFailed(f"the kernel refused a change of services: element in {name}")
                if name in VERDICTS and data.decode() not in self.chains:
                    raise CommandFailed("the kernel refused a change of services: no such chain")
        self.elements = after

    def forget(self, flows: Sequence[Flow]) -> None:
        self.forgotten += flows

    def changed_by_others(self) -> bool:
        found, self.others = self.others, False
        return found
