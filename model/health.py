"""What a container's probes found, as the API tells it. Pure."""

from __future__ import annotations

from model.spec import Struct
from model.status import Health

KEPT_RESULTS, KEPT_OUTPUT = 5, 4096
"""Results that are kept, and bytes of each one's output; Docker's numbers."""


class ProbeResult(Struct):
    """One probe. `exit_code` as Docker has it: 0 well, -1 it took too long or could not be made."""

    start: float
    end: float
    exit_code: int
    output: str = ""


class HealthLog(Struct):
    """A container's health with its last results, oldest first."""

    status: Health = ""
    failing_streak: int = 0
    log: tuple[ProbeResult, ...] = ()
