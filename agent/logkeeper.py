"""Which logs of this host are rotated, and whose followers are told that a container is over."""

from __future__ import annotations

from agent.context import Context
from agent.logs import LogReader
from agent.record import Local
from agent.rotation import LogRotator
from model.ids import InstanceId
from model.records import Instance


class LogKeeper:
    """Idle until `start`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._reader: LogReader | None = None
        self._rotator: LogRotator | None = None
        self._rotated: set[InstanceId] = set()

    def start(self, reader: LogReader, rotator: LogRotator) -> None:
        self._reader, self._rotator = reader, rotator

    def tend(self, record: Local, want: Instance | None) -> None:
        """The record, or what is wanted of it, is another now."""
        if self._reader is None or self._rotator is None:
            return
        path = str(self._context.log_path(record.instance))
        if record.live and want is not None and want.spec.log.driver != "none":
            if record.instance not in self._rotated:
                self._rotated.add(record.instance)
                self._rotator.add(path, str(self._context.bundle(record.instance)), want.spec.log)
        else:
            if record.instance in self._rotated:
                self._rotated.discard(record.instance)
                self._rotator.remove(path)
            self._reader.wake(path)
