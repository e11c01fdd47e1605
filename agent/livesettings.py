"""An agent's settings that may change while it runs: labels, registries and mirrors, what its log says.

Invariant: a setting that can't change now is told and left, and so is all of it where the settings can't be
read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import asdict, replace

from agent.config import AgentConfig
from agent.host import HostAgent
from aio.service import set_level

LIVE = ("labels", "insecure_registries", "registry_mirrors", "log_level")


def differing(before: AgentConfig, now: AgentConfig) -> tuple[Sequence[str], Sequence[str]]:
    """(settings that changed and may, those that need another start), by name. Pure."""
    old, new = asdict(before), asdict(now)
    changed = [name for name in old if old[name] != new[name]]
    return [name for name in changed if name in LIVE], [name for name in changed if name not in LIVE]


class LiveSettings:
    """`reread` gives the settings as they are now; `trust` takes what they say of registries."""

    def __init__(
        self,
        config: AgentConfig,
        reread: Callable[[], AgentConfig],
        agent: HostAgent,
        trust: Callable[[AgentConfig], None],
    ) -> None:
        self._config, self._reread, self._agent, self._trust = config, reread, agent, trust

    async def reload(self) -> str:
        """What became of it. Raises FlotaError, and then nothing changed."""
        now = self._reread()
        live, later = differing(self._config, now)
        self._trust(now)
        set_level(now.log_level)
        if "labels" in live:
            await self._agent.resettle(replace(self._agent.context.facts, labels=dict(now.labels)))
        taken = {name: getattr(now, name) for name in live}
        self._config = replace(self._config, **taken)
        return told(live, later)


def told(live: Sequence[str], later: Sequence[str]) -> str:
    """For the log and the service manager's status. Pure."""
    said = f"changed: {', '.join(_words(live))}" if live else "nothing changed"
    return f"{said}; with the next start: {', '.join(_words(later))}" if later else said


def _words(names: Sequence[str]) -> list[str]:
    return [name.replace("_", " ") for name in names]
