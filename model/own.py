"""Containers of a host's own: what a host tells the fleet of them, and what it is asked to do with one. Pure.

The host's journal is where their truth is: all that the controller has is the last that it was told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from model.api import StopRequest
from model.codec import decode_json, encode_json
from model.errors import InvalidInput, Problem
from model.ids import NAME, is_id
from model.limits import UpdateLimits
from model.records import Instance
from model.spec import Struct
from model.status import InstanceStatus

MOST = 10_000
"""Of one host."""
Verb = Literal["start", "stop", "restart", "pause", "unpause", "remove", "rename", "update"]


class OwnContainer(Struct):
    instance: Instance
    status: InstanceStatus


class OwnAct(Struct):
    """What a person says of one. A field counts for its verb alone."""

    verb: Verb
    hold: bool = False
    """start: as in `ControllerPort.start_instance`."""
    stop: StopRequest = StopRequest()
    """stop, restart."""
    force: bool = False
    volumes: bool = False
    """remove."""
    name: str = ""
    """rename."""
    limits: UpdateLimits = UpdateLimits()
    """update."""


def own_problems(told: Iterable[OwnContainer]) -> Iterator[Problem]:
    """The first, of what a host tells. What is kept is shown to people in JSON, which has no word for some
    numbers."""
    for count, one in enumerate(told):
        if count >= MOST:
            yield Problem(path="own", message=f"there are more than {MOST}")
            return
        instance = one.instance
        if not is_id(instance.id) or one.status.instance != instance.id or not NAME.match(instance.name):
            yield Problem(path="own", message=f"{instance.id[:12]} has no id or no name")
            return
        try:
            decode_json(encode_json(one), OwnContainer)
        except InvalidInput as error:
            yield Problem(path="own", message=error.message)
            return
