"""Health of a container: the check that applies, and what each probe's result makes of its state. Pure.

Docker's rule, and one change to it: the first probe is made at once, and while a container starts others
follow after 50 ms, 100 ms and so on up to `start_interval`, for until the first success nothing is sent to
it. Those early ones can only do good: a failure counts towards `retries` no more often than once per
`interval`, and not before `start_period` is over, so that nothing is unhealthy sooner than in Docker.
"""

from __future__ import annotations

from msgspec.structs import replace

from aio.backoff import delay
from model.exposed import exposed
from model.health import ProbeResult
from model.image import ImageConfig
from model.records import Instance
from model.spec import HealthCheck, Probe, Struct
from model.status import Health

INTERVAL, TIMEOUT, RETRIES, START_INTERVAL = 30.0, 30.0, 3, 5.0
"""Docker's defaults."""
FIRST_PAUSE = 0.05
MOST_PORTS = 8
"""Exposed ports that are tried; some images expose thousands."""
OPENING = 10.0
"""Seconds for which declared ports are waited for; then it is ready as it is."""
OPENING_PAUSES = 0.01, 0.5
"""The first and the longest between two tries."""


class Check(Struct):
    """A health check with nothing left open."""

    probe: Probe
    interval: float = INTERVAL
    timeout: float = TIMEOUT
    retries: int = RETRIES
    start_period: float = 0.0
    start_interval: float = START_INTERVAL


class HealthState(Struct):
    """Of one run of a container."""

    status: Health = "starting"
    streak: int = 0
    """Failures in a row that count."""
    counted_at: float = 0.0
    """When the last of them began."""
    message: str = ""
    """The last failure in one line."""


def effective(wish: HealthCheck | None, image: HealthCheck | None) -> Check | None:
    """The check that applies, as Docker merges the user's with the image's; None if there is none."""
    mine, its = wish or HealthCheck(), image or HealthCheck()
    if mine.disabled or (mine.probe is None and its.disabled):
        return None
    probe = mine.probe or its.probe
    if probe is None:
        return None
    return Check(
        probe=probe,
        interval=mine.interval or its.interval or INTERVAL,
        timeout=mine.timeout or its.timeout or TIMEOUT,
        retries=mine.retries or its.retries or RETRIES,
        start_period=mine.start_period or its.start_period,
        start_interval=mine.start_interval or its.start_interval or START_INTERVAL,
    )


class Watch(Struct):
    """How a container that starts is found ready: by its health check, or else by its declared ports."""

    check: Check | None = None
    ports: tuple[int, ...] = ()
    """TCP ports, of which so many must take a connection first as `enough` says."""
    enough: int = 0

    @property
    def first(self) -> HealthState | None:
        return HealthState() if self.check is not None else None


NONE = Watch()


def watch_of(want: Instance, image: ImageConfig) -> Watch:
    """A service's container without a health check is waited for until its published ports take connections,
    or one of those that it and its image expose. One without a service is not waited for, as in Docker."""
    check = effective(want.spec.health, image.health)
    unwatched = want.spec.health is not None and want.spec.health.disabled
    if check is not None or want.service is None or unwatched:
        return Watch(check=check)
    published = dict.fromkeys(port.target for port in want.spec.ports if port.protocol == "tcp")
    if published:
        return Watch(ports=tuple(published), enough=len(published))
    shown = (pair for text in (*want.spec.expose, *image.exposed_ports) for pair in exposed(text))
    ports = tuple(dict.fromkeys(port for port, protocol in shown if protocol == "tcp"))[:MOST_PORTS]
    return Watch(ports=ports, enough=min(1, len(ports)))


def pause(check: Check, state: HealthState, probed: int) -> float:
    """Seconds from the end of a probe to the start of the next. `probed`: how many there were in this run."""
    if state.status != "starting":
        return check.interval
    return delay(probed, first=FIRST_PAUSE, limit=min(check.start_interval, check.interval))


def folded(check: Check, state: HealthState, result: ProbeResult, started_at: float) -> HealthState:
    """The state once this result is known."""
    if result.exit_code == 0:
        return HealthState(status="healthy")
    said = replace(state, message=_in_one_line(result))
    if state.status == "starting" and not _counts(check, state, result, started_at):
        return said
    streak = state.streak + 1
    over = state.status == "unhealthy" or streak >= check.retries
    status: Health = "unhealthy" if over else state.status
    return replace(said, status=status, streak=streak, counted_at=result.start)


def _counts(check: Check, state: HealthState, result: ProbeResult, started_at: float) -> bool:
    if result.start < started_at + check.start_period:
        return False
    return result.start >= max(state.counted_at, started_at) + check.interval


def _in_one_line(result: ProbeResult) -> str:
    lines = [line.strip() for line in result.output.splitlines() if line.strip()]
    return (lines[-1] if lines else f"its check exited with {result.exit_code}")[:200]
