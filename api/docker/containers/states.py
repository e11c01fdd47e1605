"""A container's state in Docker's words. Pure."""

from __future__ import annotations

from typing import Any

from api.docker.times import ago, moment
from model.api import InstanceInfo
from model.health import HealthLog
from model.records import Desired
from model.status import Phase

_WORDS = {
    Phase.STARTING: "created",
    Phase.RUNNING: "running",
    Phase.STOPPING: "running",
    Phase.RESTARTING: "restarting",
    Phase.EXITED: "exited",
    Phase.REMOVED: "removing",
    Phase.LOST: "dead",
}
_STARTING = frozenset({Phase.PREPARING, Phase.CREATED, Phase.STARTING})
STATES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")


def state(info: InstanceInfo) -> str:
    """One of STATES. What never ran is created, also where it could not be made or started, as in Docker."""
    status = info.status
    if info.instance.desired is Desired.REMOVED and not status.phase.live:
        return "removing"
    if status.paused:
        return "paused"
    if status.phase is Phase.FAILED:
        return "exited" if status.started_at else "created"
    if status.phase in _STARTING and status.restarts:
        return "restarting"  # on the way to its next run
    return _WORDS.get(status.phase, "created")


def summary(info: InstanceInfo, now: float) -> str:
    """As the STATUS column: `Up 5 minutes (healthy)`, `Exited (0) 3 seconds ago`."""
    status, word = info.status, state(info)
    if word in ("running", "paused"):
        health = {"starting": " (health: starting)"}.get(
            status.health, f" ({status.health})" if status.health else ""
        )
        paused = " (Paused)" if word == "paused" else ""
        return f"Up {ago(status.started_at, now)}{paused or health}"
    if word == "restarting":
        return f"Restarting ({status.exit_code or 0}) {ago(status.finished_at, now)} ago"
    if word == "removing":
        return "Removal In Progress"
    if word == "dead":
        return "Dead"
    if word == "created":
        return "Created"
    return f"Exited ({exit_code(info)}) {ago(status.finished_at, now)} ago"


def exit_code(info: InstanceInfo) -> int:
    """0 while it runs; 255 where nobody knows how it ended."""
    if info.status.exit_code is None:
        return 255 if info.status.phase is Phase.EXITED else 0
    return info.status.exit_code


def inspected(info: InstanceInfo, health: HealthLog | None) -> dict[str, Any]:
    """The State of an inspection."""
    status, word = info.status, state(info)
    made: dict[str, Any] = {
        "Status": word,
        "Running": word in ("running", "paused", "restarting"),
        "Paused": word == "paused",
        "Restarting": word == "restarting",
        "OOMKilled": status.oom_killed,
        "Dead": word == "dead",
        "Pid": status.pid if word in ("running", "paused") else 0,
        "ExitCode": exit_code(info) if word not in ("running", "paused") else 0,
        "Error": status.message if status.phase in (Phase.FAILED, Phase.LOST) else "",
        "StartedAt": moment(status.started_at),
        "FinishedAt": moment(status.finished_at),
    }
    if status.health:
        log = health.log if health is not None else ()
        made["Health"] = {
            "Status": status.health,
            "FailingStreak": health.failing_streak if health is not None else 0,
            "Log": [
                {"Start": moment(r.start), "End": moment(r.end), "ExitCode": r.exit_code, "Output": r.output}
                for r in log
            ],
        }
    return made
