"""Session messages between controller and agent: MessagePack frames over one WebSocket. Pure.

Agent opens, says Hello; controller answers Welcome with the whole View; then Deltas down, Reports up.
A controller of version N speaks with agents N-1: fields are only added, with defaults.
"""

from __future__ import annotations

import msgspec

from model.codec import UNREADABLE
from model.directory import DirectoryDelta
from model.errors import InvalidInput
from model.events import Event
from model.ids import InstanceId
from model.own import OwnContainer
from model.spec import Struct
from model.status import HostFacts, HostReport, InstanceStatus
from model.view import View, ViewDelta

PROTOCOL = 5
OLDEST = 1
"""Agents of this protocol and later are spoken with: at least those of the release before this one. Newer
ones than ours are not: a controller is upgraded before its agents."""
WITH_DIRECTORY = 2
"""Agents of this protocol and later are told who is on their networks."""
WITH_DEPARTURES = 3
"""Agents of this protocol and later say what they follow of that, and are told when nobody else leads to an
instance of theirs that is to go."""
WITH_ARRIVALS = 4
"""Agents of this protocol and later say that they follow once policies do, too, and are told when the hosts
that judge know an instance of theirs that is about to start."""
WITH_RECALL = 5
"""Agents of this protocol and later tell, when they are asked, what they were told last, and refuse a
controller whose state is older than one that they have heard."""


class Hello(Struct, tag="hello"):
    """Agent's first frame: who it is (its certificate says which host), and all that runs there."""

    epoch: int
    """Rises with every start of this host's agent; with `Report.sequence` it orders reports."""
    boot_id: str
    facts: HostFacts
    statuses: tuple[InstanceStatus, ...]
    report: HostReport
    protocol: int = PROTOCOL
    own: tuple[OwnContainer, ...] = ()
    """All that were made on the host's own socket."""


class Report(Struct, tag="report"):
    """Changes since the last one: latest status per instance, and what is no longer there."""

    sequence: int
    statuses: tuple[InstanceStatus, ...] = ()
    forgotten: tuple[InstanceId, ...] = ()
    """Removed on the host, nothing left of them."""
    report: HostReport | None = None
    events: tuple[Event, ...] = ()
    facts: HostFacts | None = None
    """Something of the host itself is another than Hello said."""
    own: tuple[OwnContainer, ...] = ()
    """As `Hello.own`: new ones, and changed ones."""
    own_gone: tuple[InstanceId, ...] = ()
    blobs: tuple[str, ...] | None = None
    """Digests of all that it gives to others: layers, and what images are named by; None: as before."""


class Ack(Struct, tag="ack"):
    """Agent: the View of this revision is in my journal."""

    revision: int


class NeedView(Struct, tag="need_view"):
    """Agent: your delta does not fit what I have; send the whole."""

    have: int


class Pong(Struct, tag="pong"):
    serial: int


class Follows(Struct, tag="follows"):
    """Agent: new connections go by the Membership of this serial, and those before it."""

    serial: int


class Recall(Struct, tag="recall"):
    """Agent: what I was told last, and what is here; I go by that until a whole View comes."""

    view: View
    statuses: tuple[InstanceStatus, ...] = ()


AgentMessage = Hello | Report | Ack | NeedView | Pong | Follows | Recall


class Welcome(Struct, tag="welcome"):
    view: View
    ping_every: float
    """Seconds between pings; silence of 3 × this means: reconnect."""
    protocol: int = PROTOCOL
    epoch: int = 0
    """The leader's: it rises with every start of a controller on one state, and beyond all of them when that
    is restored from a backup. 0: it doesn't say."""
    recall: bool = False
    """The state may be older than what you were told: don't act on this View, answer Recall."""
    registry: str = ""
    """host:port of the fleet's own, if there is one."""


class Delta(Struct, tag="delta"):
    delta: ViewDelta


class FullView(Struct, tag="full_view"):
    view: View


class Membership(Struct, tag="membership"):
    """Who is on the networks that this host carries; `whole`: forget what you knew."""

    delta: DirectoryDelta
    whole: bool = False
    serial: int = 0
    """To be answered by Follows; rises."""


class Departing(Struct, tag="departing"):
    """No other host sends new connections to these of yours, which are to go: they may drain."""

    instances: tuple[InstanceId, ...]


class Arrived(Struct, tag="arrived"):
    """All hosts that judge them know the addresses of these of yours, which are about to start: let them."""

    instances: tuple[InstanceId, ...]


class Reported(Struct, tag="reported"):
    """Controller: your Report of this sequence is taken; forget it."""

    sequence: int


class Ping(Struct, tag="ping"):
    serial: int


class Goodbye(Struct, tag="goodbye"):
    """Controller: end this session. `retry` false: this host was removed or is not welcome; stop trying."""

    reason: str
    retry: bool = True


ControllerMessage = Welcome | Delta | FullView | Membership | Departing | Arrived | Reported | Ping | Goodbye

_from_agent: msgspec.msgpack.Decoder[AgentMessage] = msgspec.msgpack.Decoder(AgentMessage)
_from_controller: msgspec.msgpack.Decoder[ControllerMessage] = msgspec.msgpack.Decoder(ControllerMessage)


def decode_agent(frame: bytes) -> AgentMessage:
    """Raises InvalidInput on anything that is no agent's message."""
    try:
        return _from_agent.decode(frame)
    except UNREADABLE as error:
        raise InvalidInput(f"malformed message from an agent: {error}") from error


def decode_controller(frame: bytes) -> ControllerMessage:
    """Raises InvalidInput on anything that is no controller's message."""
    try:
        return _from_controller.decode(frame)
    except UNREADABLE as error:
        raise InvalidInput(f"malformed message from the controller: {error}") from error


def skew(protocol: int) -> str:
    """Why a controller of this release does not speak with an agent of that protocol, and what to do; empty:
    it does."""
    if protocol > PROTOCOL:
        return (
            f"its agent speaks protocol {protocol}, this controller {PROTOCOL}: upgrade the controller first"
        )
    if protocol < OLDEST:
        return (
            f"its agent speaks protocol {protocol}, this controller {OLDEST} to {PROTOCOL}: upgrade the host"
        )
    return ""
