"""This host's daemons as units of systemd, where that runs: written, enabled, started, reloaded, taken away.

Invariant: only files that bear our mark are replaced or removed, and only those of the same two folders;
drop-ins are an admin's own. A start that fails leaves what was there before.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from aio.processes import booted
from cli.pinned import program
from cli.unitfiles import UnitFiles
from deploy import units
from model.errors import CommandFailed, InUse, Unavailable

START_DEADLINE = 150.0
"""Seconds; systemd itself gives up on a start after TimeoutStartSec."""
COMMAND_DEADLINE = 60.0
Call = Callable[[Sequence[str], float], "subprocess.CompletedProcess[str]"]
"""Runs a program for at most so many seconds."""


def call(argv: Sequence[str], deadline: float) -> subprocess.CompletedProcess[str]:
    """Raises Unavailable."""
    try:
        return subprocess.run(list(argv), capture_output=True, text=True, timeout=deadline, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"`{' '.join(argv)}` does not end within {deadline:g} s") from error
    except OSError as error:
        raise Unavailable(f"{argv[0]} cannot be run: {error.strerror}") from error


def runs() -> bool:
    """Whether daemons are to be units: systemd is the init, and nobody has said that they should not be."""
    return os.environ.get("FLOTA_SYSTEMD", "") != "0" and booted()


class Systemd:
    """`top` is what the units' paths are below, for tests."""

    logs = "journalctl -u 'flota-*'"

    def __init__(self, root: str, run: str, *, call: Call = call, top: str = "/") -> None:
        self._root, self._run, self._call = root, run, call
        self._files = UnitFiles(top, 0o644)

    def start(self, name: str) -> bool:
        """Have `agent` or `controller` run as a unit; False when it did so already, in these words. Raises
        InUse for files that are not ours, Unavailable in the daemon's words when it does not start."""
        unit = _unit(name)
        if name == "controller":
            os.makedirs(f"{self._root}/controller", mode=0o700, exist_ok=True)  # its unit names it
        before = self._write(self._units(name))
        try:
            if before:
                self._systemctl("daemon-reload")
            enabled = self._asked("is-enabled", unit)
            active = self._asked("is-active", unit)
            if active and not before:
                return False
            began = time.time()
            verb = "restart" if active else "start"
            if name == "agent":
                # the daemons' order alone would not have it come back after its own end
                self._systemctl("start", units.PROCESSES)
            self._systemctl("enable", unit)
            done = self._call(("systemctl", verb, unit), START_DEADLINE)
            if done.returncode:
                self._undo(name, before, enabled=enabled)
                raise Unavailable(f"the {name} did not start: {self._last_words(unit, began, done.stderr)}")
        except CommandFailed:
            self._restore(before)
            raise
        return True

    def active(self, name: str) -> bool:
        return self._installed(_unit(name)) and self._asked("is-active", _unit(name))

    def keeps(self) -> bool:
        """Whether the supervisor of what outlives the agent is ours to start already."""
        return self._installed(units.PROCESSES) and self._asked("is-active", units.PROCESSES)

    def reload(self, name: str) -> None:
        """Have a daemon that runs as our unit read its settings again."""
        if self._installed(_unit(name)):
            self._call(("systemctl", "reload", _unit(name)), COMMAND_DEADLINE)

    def stop(self, names: Sequence[str]) -> list[str]:
        """Those that ran as our units and were stopped; they come back with the next boot."""
        ours = [name for name in names if self._installed(_unit(name))]
        stopped = [name for name in ours if self.active(name)]
        for name in ours:
            self._systemctl("stop", _unit(name))  # also one that waits for its next start
        return stopped

    def remove(self) -> None:
        """Our units, stopped, are no more. Idempotent."""
        ours = [unit for unit in (units.AGENT, units.CONTROLLER, units.PROCESSES) if self._installed(unit)]
        for unit in ours:
            self._systemctl("disable", "--now", unit)
            self._files.path(f"{units.FOLDER}/{unit}").unlink(missing_ok=True)
        if ours:
            self._systemctl("daemon-reload")
            self._call(("systemctl", "reset-failed", *ours), COMMAND_DEADLINE)  # fails where nothing had

    # -- files --------------------------------------------------------------------------------------
    def _units(self, name: str) -> Mapping[str, str]:
        options = units.Options(
            program=program(name),
            root=self._root,
            run=self._run,
            systemd=version(self._systemctl("--version")),
        )
        return units.agent_units(options) if name == "agent" else units.controller_units(options)

    def _write(self, wanted: Mapping[str, str]) -> dict[str, str | None]:
        """What was in the files that are others now; None where there was none."""
        before = {path: self._files.text(path) for path in wanted}
        for path, text in before.items():
            if text is not None and units.folders(text) != (self._root, self._run):
                whose = f"serves {units.folders(text)[0]}" if units.is_ours(text) else "is not flota's own"
                hint = "Remove it, or stop that one with `flota down --purge --root …`"
                raise InUse(f"{path} {whose}: it is left as it is", hint=hint)
        changed = {path: text for path, text in before.items() if text != wanted[path]}
        for path in changed:
            self._files.put(path, wanted[path])
        return changed

    def _restore(self, before: Mapping[str, str | None]) -> None:
        for path, text in before.items():
            if text is None:
                self._files.path(path).unlink(missing_ok=True)
            else:
                self._files.put(path, text)

    def _undo(self, name: str, before: Mapping[str, str | None], *, enabled: bool) -> None:
        """One that was not to run before is not started again and again."""
        if enabled:
            return
        names = [_unit(name), *([units.PROCESSES] if name == "agent" else [])]
        self._call(("systemctl", "disable", "--now", *names), COMMAND_DEADLINE)
        self._restore(before)
        self._call(("systemctl", "daemon-reload"), COMMAND_DEADLINE)
        self._call(("systemctl", "reset-failed", *names), COMMAND_DEADLINE)

    def _installed(self, unit: str) -> bool:
        text = self._files.text(f"{units.FOLDER}/{unit}")
        return text is not None and units.folders(text) == (self._root, self._run)

    # -- systemd ------------------------------------------------------------------------------------
    def _systemctl(self, *words: str) -> str:
        done = self._call(("systemctl", *words), COMMAND_DEADLINE)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
            raise CommandFailed(f"`systemctl {' '.join(words)}` failed: {said}")
        return done.stdout

    def _asked(self, question: str, unit: str) -> bool:
        return self._call(("systemctl", "--quiet", question, unit), COMMAND_DEADLINE).returncode == 0

    def _last_words(self, unit: str, since: float, complaint: str) -> str:
        words = (
            "journalctl",
            "--quiet",
            "--no-pager",
            "--output=cat",
            f"--since=@{int(since)}",
            f"--unit={unit}",
        )
        with contextlib.suppress(Unavailable):
            lines = self._call(words, COMMAND_DEADLINE).stdout.splitlines()
            own = [line.removeprefix("flota: ") for line in lines if line.startswith("flota: ")]
            systemds = [line for line in lines if "Failed" in line]
            if own or systemds:
                return own[-1] if own else systemds[0]
        return (complaint.strip().splitlines() or ["it said nothing"])[0]


def version(text: str) -> int:
    """Of `systemctl --version`; 0 for what it can't be told from. Pure."""
    words = text.split()
    number = words[1].partition(".")[0].partition("~")[0] if len(words) > 1 else ""
    return int(number) if number.isdecimal() else 0


def _unit(name: str) -> str:
    return units.AGENT if name == "agent" else units.CONTROLLER
