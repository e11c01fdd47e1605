"""The controller's part of builds: which host does one, and how many it does.

Invariant: a build counts for its host as long as its connection is forwarded; nothing of it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from controller.buildplace import Builder, Choice, choose, named
from controller.commands.find import find_host
from controller.core import Core
from model.build import BuildPlace, Placed
from model.errors import InvalidInput
from model.ids import HostId
from model.spec import Availability
from model.status import Platform


class Building(Core):
    """`controller.controller.Controller` is one."""

    @contextmanager
    def place_build(self, wish: BuildPlace) -> Iterator[tuple[HostId, Placed]]:
        """Raises NotFound, Unavailable, InvalidInput."""
        choice = self._choice(wish)
        self.builds[choice.host] = self.builds.get(choice.host, 0) + 1
        try:
            yield choice.host, Placed(host=choice.name, why=choice.why)
        finally:
            self.builds[choice.host] -= 1
            if not self.builds[choice.host]:
                del self.builds[choice.host]

    def _choice(self, wish: BuildPlace) -> Choice:
        hosts = self._builders()
        if wish.host:
            return named(hosts, find_host(self.snapshot(), wish.host).id, wish.host)
        platform = _platform(wish.platform) if wish.platform else None
        return choose(hosts, fleet=self.snapshot().settings.fleet_id, context=wish.context, platform=platform)

    def _builders(self) -> Sequence[Builder]:
        cluster = self.snapshot()
        found = (cluster.hosts.get(ident) for ident in self.sessions.hosts())
        return [
            Builder(
                host=host.id,
                name=host.spec.name,
                active=host.spec.availability is Availability.ACTIVE,
                platform=host.facts.platform,
                nano_cpus=host.facts.nano_cpus,
                builds=self.builds.get(host.id, 0),
            )
            for host in found
            if host is not None
        ]


def _platform(text: str) -> Platform:
    """Raises InvalidInput."""
    words = text.split("/")
    if not 2 <= len(words) <= 3 or not all(words):
        raise InvalidInput(f"{text[:80]!r} is no platform", hint="Write os/arch, for example linux/arm64")
    return Platform(os=words[0], arch=words[1], variant="".join(words[2:]))
