"""The steps of an instance's life: what is to be done and what came of it. Pure.

`agent.lifecycle` chooses them, `agent.actions` does them, `agent.worker` stands between.
"""

from __future__ import annotations

from enum import StrEnum

from agent.probe import Watch
from agent.runtime.base import Created
from model.errors import Internal
from model.records import ResolvedAttachment
from model.spec import Publish, Resources, Struct
from model.status import BoundPort, Endpoint


class Step(StrEnum):
    ROOT = "root"
    """Image on the host, writable layer made."""
    PREPARE = "prepare"
    """Root mounted, volumes, network namespace, endpoints, published ports."""
    CREATE = "create"
    """Its process exists and is held."""
    START = "start"
    STOP = "stop"
    """Signal, grace, kill; done when the process is over."""
    DRAIN = "drain"
    """Before a stop: whoever sends it new connections learns not to. Only sets the time when that is over."""
    WIRE = "wire"
    """Endpoints and published ports made as wanted, while its process lives."""
    LIMIT = "limit"
    """Its cgroup's limits set as wanted, while its process lives."""
    PAUSE = "pause"
    RESUME = "resume"
    CLEAN = "clean"
    """All but the root and the log is taken away."""
    REMOVE = "remove"
    """Nothing is left."""
    SETTLE = "settle"
    """It will not start again by itself; there is nothing to do."""
    WAIT = "wait"
    """Until `Action.until`."""


class Action(Struct):
    step: Step
    why: str
    force: bool = False
    """STOP without grace."""
    grace: float | None = None
    """STOP: seconds between the polite signal and the kill, where the request says so."""
    until: float = 0.0
    """WAIT, DRAIN: Clock.now() of the end."""
    departing: bool = False
    """DRAIN: the other hosts have said that they avoid it."""
    attempt: int = 0
    """ROOT, PREPARE: the wanted attempt that this serves."""
    revision: int = 0
    """WIRE, LIMIT: that of the wish."""


class Outcome(Struct):
    """What a step gave. `error` set: it failed, in these words; `interrupted`: the wish changed meanwhile."""

    error: str = ""
    interrupted: bool = False
    image_id: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[BoundPort, ...] = ()
    attached: tuple[ResolvedAttachment, ...] | None = None
    published: tuple[Publish, ...] | None = None
    volumes: tuple[tuple[str, str], ...] = ()
    anonymous: tuple[str, ...] = ()
    created: Created | None = None
    limits: Resources | None = None
    """With CREATE and LIMIT: the wish that was done."""
    boot_id: str = ""
    """With `created`: the boot in which it is true."""
    watch: Watch = Watch()
    """With START."""


class InvalidTransition(Internal):
    """A record that can't be; the message carries the instance's story, so that it can be played again."""
