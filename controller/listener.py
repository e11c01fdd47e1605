"""What sessions tell the controller, and ask it: `controller.core.Core` is one."""

from __future__ import annotations

from typing import Protocol

from controller.snapshot import Cluster
from model.directory import Directory
from model.ids import HostId
from model.view import View
from model.wire import Hello, Recall, Report


class Listener(Protocol):
    """What a session tells the controller."""

    def snapshot(self) -> Cluster: ...

    def directory(self, host: HostId, view: View) -> Directory:
        """Who is on the networks of that View."""
        ...

    async def greeted(self, host: HostId, hello: Hello) -> None:
        """A session begins; returns when what Hello changes is durable. Raises NotFound for no such host."""
        ...

    async def reported(self, host: HostId, report: Report) -> None:
        """Returns when what it changes is durable."""
        ...

    def ponged(self, host: HostId) -> None: ...

    def followed(self, host: HostId) -> None:
        """It says that new connections go by more of what it was told."""
        ...

    def parted(self, host: HostId) -> None:
        """The session ended, and none has taken its place."""
        ...

    def leads(self) -> int:
        """The leader's epoch."""
        ...

    def held(self) -> bool:
        """Whether no host is to be told anything now (`controller.recovery`)."""
        ...

    def asks(self, host: HostId) -> bool:
        """Whether it is to say first what it was told last."""
        ...

    async def recalled(self, host: HostId, recall: Recall) -> None:
        """Returns when what it knew is durable."""
        ...
