"""Our progress of transfers as Docker's JSON messages. Pure.

Several hosts do the same at once, and a client shows one line per layer: that of the host which is least far.
Source: Docker Engine API, "JSONMessage"; Docker Engine's own words of pulls and pushes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.errors import BY_CODE, FlotaError, Internal
from model.image import Progress
from model.quantity import format_size

_ORDER = (
    "Preparing",
    "Waiting",
    "Pulling fs layer",
    "Downloading",
    "Pushing",
    "Verifying Checksum",
    "Download complete",
    "Extracting",
)
"""How far a layer is; every other word is an end."""
_RANK = {word: rank for rank, word in enumerate(_ORDER)}
_BAR = 50
Message = Mapping[str, Any]


class Merged:
    """Lines of all hosts in, those to be shown out."""

    def __init__(self) -> None:
        self._layers: dict[str, dict[str, Progress]] = {}
        self._shown: dict[str, Progress] = {}
        self._said: set[str] = set()
        self.done: list[Progress] = []
        """Last lines of those that are done."""
        self.failures: list[Progress] = []

    def take(self, line: Progress) -> Message | None:
        """None: nothing new is to be shown."""
        if line.error:
            self.failures.append(line)
            return None
        if line.image:
            self.done.append(line)
            return None
        if not line.id:
            return self._once(line.status)
        hosts = self._layers.setdefault(line.id, {})
        hosts[line.host] = line
        least = min(hosts.values(), key=_how_far)
        before = self._shown.get(line.id)
        if before is not None and (before.status, before.current) == (least.status, least.current):
            return None
        self._shown[line.id] = least
        return layer(least)

    def _once(self, status: str) -> Message | None:
        """Each host says it."""
        if status in self._said:
            return None
        self._said.add(status)
        return {"status": status}

    def failure(self) -> FlotaError | None:
        """Of the first host that failed, named where others did not."""
        if not self.failures:
            return None
        first = self.failures[0]
        others = self.done or len(self.failures) > 1
        words = f"{first.host}: {first.error}" if first.host and others else first.error
        return BY_CODE.get(first.error_code, Internal)(words)


def _how_far(line: Progress) -> tuple[int, float]:
    return _RANK.get(line.status, len(_ORDER)), line.current / line.total if line.total else 0.0


def layer(line: Progress) -> Message:
    made: dict[str, Any] = {"status": line.status, "progressDetail": {}, "id": line.id}
    if line.total or line.current:
        made["progressDetail"] = {"current": line.current, "total": line.total}
        made["progress"] = bar(line.current, line.total)
    return made


def bar(current: int, total: int) -> str:
    """`[=====>     ]  5B/10B`; without a total the amount alone."""
    if total <= 0:
        return format_size(current)
    filled = min(_BAR * current // total, _BAR)
    return f"[{'=' * filled}>{' ' * (_BAR - filled)}] {format_size(current):>8}/{format_size(total)}"


def failed(words: str, code: int = 0) -> Message:
    """`code`: what the client is to end with, if it matters."""
    detail = {"code": code, "message": words} if code else {"message": words}
    return {"errorDetail": detail, "error": words}
