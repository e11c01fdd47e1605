"""This host's daemons as services of OpenRC, where that runs and systemd does not (Alpine).

Invariant: as of `cli.systemd`: only marked files of the same two folders are replaced or removed, and a start
that fails leaves what was there before.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from cli import daemon
from cli.pinned import program
from cli.systemd import COMMAND_DEADLINE, Call, call
from cli.unitfiles import UnitFiles
from deploy import openrc
from deploy.units import Options
from model.errors import CommandFailed, InUse, Unavailable

RUNLEVEL = "default"
PAUSE = 0.05


def runs(root: str = "/") -> bool:
    """Whether OpenRC has brought this host up. Where the first process is neither its own init nor busybox's
    or sysvinit's, as in a container, its folder is somebody else's."""
    try:
        first = Path(root, "proc/1/comm").read_text().strip()
    except OSError:
        return False
    return first in ("init", "openrc-init") and Path(root, "run/openrc/softlevel").exists()


class OpenRc:
    """`top` is what the services' paths are below, for tests."""

    logs = "logs in {root}/log"

    def __init__(
        self,
        root: str,
        run: str,
        *,
        call: Call = call,
        top: str = "/",
        deadline: float = daemon.START_DEADLINE,
    ) -> None:
        self._root, self._run, self._call, self._deadline = root, run, call, deadline
        self._files = UnitFiles(top, 0o755)

    def start(self, name: str) -> bool:
        """As `Systemd.start`."""
        options = Options(program=program(name), root=self._root, run=self._run)
        ((path, text),) = openrc.services(options, name).items()
        before = self._files.text(path)
        if before is not None and openrc.folders(before) != (self._root, self._run):
            whose = f"serves {openrc.folders(before)[0]}" if openrc.is_ours(before) else "is not flota's own"
            raise InUse(f"{path} {whose}: it is left as it is", hint="Remove it, or purge that one")
        if self.active(name):
            if before == text:
                return False
            self._checked("rc-service", _service(name), "stop")
        self._files.put(path, text)
        try:
            self._checked("rc-update", "--quiet", "add", _service(name), RUNLEVEL)
            self._run_it(name)
        except (CommandFailed, Unavailable):
            if before is None:
                self._forget(name)
            raise
        return True

    def active(self, name: str) -> bool:
        return (
            self._installed(name)
            and not self._call(("rc-service", _service(name), "status"), COMMAND_DEADLINE).returncode
        )

    def keeps(self) -> bool:
        """The agent itself keeps its processes here."""
        return True

    def reload(self, name: str) -> None:
        if self._installed(name):
            self._call(("rc-service", _service(name), "reload"), COMMAND_DEADLINE)

    def stop(self, names: Sequence[str]) -> list[str]:
        stopped = [name for name in names if self.active(name)]
        for name in stopped:
            self._checked("rc-service", _service(name), "stop")
        return stopped

    def remove(self) -> None:
        for name in ("agent", "controller"):
            if self._installed(name):
                self._forget(name)

    def _run_it(self, name: str) -> None:
        """Until it answers: OpenRC calls a service started that may never come up, and starts it again."""
        log = f"{self._root}/log/{name}.log"
        os.makedirs(os.path.dirname(log), mode=0o755, exist_ok=True)
        begin = os.path.getsize(log) if os.path.exists(log) else 0
        socket = f"{self._run}/{'flota' if name == 'controller' else 'agent'}.sock"
        self._checked("rc-service", _service(name), "start")
        end = time.monotonic() + self._deadline
        while not daemon.answers(socket):
            said = daemon.own_words(log, begin)
            if said or time.monotonic() > end:
                self._call(("rc-service", _service(name), "stop"), COMMAND_DEADLINE)
                words = said or f"it does not answer on {socket}"
                raise Unavailable(f"the {name} did not start: {words}", hint=f"See {log}")
            time.sleep(PAUSE)

    def _forget(self, name: str) -> None:
        self._call(("rc-service", _service(name), "stop"), COMMAND_DEADLINE)
        self._call(("rc-update", "--quiet", "delete", _service(name), RUNLEVEL), COMMAND_DEADLINE)
        with contextlib.suppress(FileNotFoundError):
            self._files.path(f"{openrc.FOLDER}/{_service(name)}").unlink()

    def _checked(self, *words: str) -> None:
        done = self._call(words, COMMAND_DEADLINE)
        if done.returncode:
            said = (done.stderr + done.stdout).strip().splitlines() or ["it said nothing"]
            raise CommandFailed(f"`{' '.join(words)}` failed: {said[-1].strip(' *')}")

    def _installed(self, name: str) -> bool:
        text = self._files.text(f"{openrc.FOLDER}/{_service(name)}")
        return text is not None and openrc.folders(text) == (self._root, self._run)


def _service(name: str) -> str:
    return openrc.AGENT if name == "agent" else openrc.CONTROLLER
