"""Units written, started and taken away, with a systemctl that only says what it was asked."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from aio.processes import booted
from cli import remembered
from cli.pinned import pinned, program
from cli.systemd import Systemd
from deploy import units
from deploy.units import AGENT, CONTROLLER, FOLDER, PROCESSES
from model.errors import CommandFailed, InUse, Unavailable


class Systemctl:
    """As far as we ask it: `enabled`, `active` and what can't be started."""

    def __init__(self) -> None:
        self.enabled: set[str] = set()
        self.active: set[str] = set()
        self.broken: set[str] = set()
        self.said: list[str] = []
        self.journal = ""

    def __call__(self, argv: Sequence[str], deadline: float) -> subprocess.CompletedProcess[str]:
        words = [word for word in argv[1:] if word not in ("--quiet", "--now")]
        self.said.append(" ".join(words))
        if argv[0] == "journalctl":
            return self._done(out=self.journal)
        verb, units = words[0], words[1:]
        match verb:
            case "--version":
                return self._done(out="systemd 252 (252)")
            case "is-enabled":
                return self._done(units[0] in self.enabled)
            case "is-active":
                return self._done(units[0] in self.active)
            case "enable":
                self.enabled |= set(units)
            case "disable":
                self.enabled -= set(units)
                self.active -= set(units)
            case "stop":
                self.active -= set(units)
            case "start" | "restart":
                if set(units) & self.broken:
                    return self._done(False, err="Job failed.\nSee systemctl status.")
                self.active |= set(units)
            case "daemon-reload" | "reload" | "reset-failed":
                pass
            case _:
                raise AssertionError(words)
        return self._done()

    def _done(self, ok: bool = True, out: str = "", err: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess((), 0 if ok else 1, out, err)


class Host:
    def __init__(self, folder: Path) -> None:
        self.top, self.root = folder / "top", str(folder / "root")
        self.systemctl = Systemctl()
        self.units = self.at(self.root)

    def at(self, root: str) -> Systemd:
        return Systemd(root, "/run/flota", call=self.systemctl, top=str(self.top))

    def file(self, unit: str) -> Path:
        return self.top / FOLDER.lstrip("/") / unit


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_daemon_is_written_enabled_and_started_once(host: Host) -> None:
    assert host.units.start("agent")
    assert host.systemctl.active == {AGENT, PROCESSES} and host.systemctl.enabled == {AGENT}
    assert f"--root {host.root}" in host.file(AGENT).read_text()
    first = len(host.systemctl.said)
    assert not host.units.start("agent")
    assert not {"start", "restart", "daemon-reload"} & {
        word for line in host.systemctl.said[first:] for word in line.split()
    }


def test_unit_of_another_release_is_written_anew_and_the_daemon_restarted(host: Host) -> None:
    host.units.start("agent")
    text = host.file(AGENT).read_text()
    host.file(AGENT).write_text(text.replace("WatchdogSec=30", "WatchdogSec=5"))
    assert host.units.start("agent")
    assert host.file(AGENT).read_text() == text
    assert f"restart {AGENT}" in host.systemctl.said


def test_file_that_is_not_ours_is_left_and_nothing_started(host: Host) -> None:
    host.file(CONTROLLER).parent.mkdir(parents=True)
    host.file(CONTROLLER).write_text("[Service]\nExecStart=/bin/mine\n")
    with pytest.raises(InUse, match="not flota's own"):
        host.units.start("controller")
    assert host.file(CONTROLLER).read_text() == "[Service]\nExecStart=/bin/mine\n"
    assert host.systemctl.active == set() and host.units.stop(["controller"]) == []
    host.units.remove()
    assert host.file(CONTROLLER).exists()


def test_units_of_another_root_folder_are_left(host: Host, tmp_path: Path) -> None:
    host.units.start("agent")
    other = host.at(str(tmp_path / "other"))
    with pytest.raises(InUse, match=host.root):
        other.start("agent")
    assert other.stop(["agent"]) == []
    other.remove()
    assert host.file(AGENT).exists() and host.systemctl.active == {AGENT, PROCESSES}


def test_start_that_fails_tells_the_daemons_words_and_leaves_nothing(host: Host) -> None:
    host.systemctl.broken = {AGENT}
    host.systemctl.journal = "Starting…\nflota: no runc on this host\nflota-agent.service: Failed with result"
    with pytest.raises(Unavailable, match="the agent did not start: no runc on this host"):
        host.units.start("agent")
    assert host.systemctl.active == host.systemctl.enabled == set()
    assert not host.file(AGENT).exists() and not host.file(PROCESSES).exists()


def test_start_that_fails_of_a_daemon_that_was_set_up_leaves_it_set_up(host: Host) -> None:
    host.units.start("agent")
    host.systemctl.active.clear()
    host.systemctl.broken = {AGENT}
    with pytest.raises(Unavailable):
        host.units.start("agent")
    assert host.file(AGENT).exists() and host.systemctl.enabled == {AGENT}


def test_systemctl_that_fails_leaves_the_files_as_they_were(host: Host) -> None:
    host.systemctl.broken = {PROCESSES}
    with pytest.raises(CommandFailed, match="Job failed"):
        host.units.start("agent")
    assert not host.file(AGENT).exists()


def test_down_stops_what_is_ours_and_purge_takes_it_away(host: Host) -> None:
    host.units.start("agent")
    host.units.start("controller")
    assert host.units.stop(["agent", "controller"]) == ["agent", "controller"]
    host.systemctl.said.clear()
    assert host.units.stop(["agent"]) == [] and f"stop {AGENT}" in host.systemctl.said, "it may be restarting"
    assert host.systemctl.enabled == {AGENT, CONTROLLER} and host.systemctl.active == {PROCESSES}
    host.units.remove()
    assert host.systemctl.enabled == host.systemctl.active == set()
    assert not any(host.file(unit).exists() for unit in (AGENT, CONTROLLER, PROCESSES))
    said = len(host.systemctl.said)
    host.units.remove()
    assert len(host.systemctl.said) == said


@pytest.mark.parametrize("places", [{}, {"root": "/srv/a b%", "run": "/srv/run"}])
def test_systemd_itself_understands_every_line(tmp_path: Path, places: dict[str, str]) -> None:
    options = units.Options(program=("/bin/sh",), **places)
    made = {**units.agent_units(options), **units.controller_units(options)}
    paths = [tmp_path / Path(path).name for path in made]
    for path, text in zip(paths, made.values(), strict=True):
        path.write_text(text)
    words = ("systemd-analyze", "verify", "--man=no", *map(str, paths))
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    own = [line for line in done.stderr.splitlines() if "flota" in line]
    assert done.returncode == 0 and own == []


@pytest.mark.parametrize(("unit", "most"), [(CONTROLLER, 3.0), (PROCESSES, 3.0)])
def test_who_starts_no_container_is_shut_in(tmp_path: Path, unit: str, most: float) -> None:
    options = units.Options(program=("/bin/sh",))
    made = {**units.agent_units(options), **units.controller_units(options)}
    path = tmp_path / unit
    path.write_text(made[f"{FOLDER}/{unit}"])
    words = ("systemd-analyze", "security", "--offline=true", f"--threshold={int(most * 10)}", str(path))
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-300:]


def test_systemd_runs_only_where_it_is_the_first_process(tmp_path: Path) -> None:
    (tmp_path / "proc/1").mkdir(parents=True)
    comm = tmp_path / "proc/1/comm"
    comm.write_text("systemd\n")
    assert not booted(str(tmp_path))
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert booted(str(tmp_path))
    comm.write_text("python3\n")
    assert not booted(str(tmp_path))


def test_daemon_is_started_by_way_of_its_own_link_whoever_asks(tmp_path: Path) -> None:
    mine, other = tmp_path / "releases/1", tmp_path / "releases/2"
    for release in (mine, other):
        (release / "bin").mkdir(parents=True)
        (release / "bin/flota").touch()
    assert program("agent", str(mine)) == (str(mine / "bin/flota"),)
    (tmp_path / "current").symlink_to("releases/1")
    assert program("agent", str(mine)) == (str(tmp_path / "current/bin/flota"),)
    (tmp_path / "controller").symlink_to("releases/2")
    assert program("agent", str(mine)) == (str(tmp_path / "current/bin/flota"),)
    assert program("controller", str(mine)) == (str(tmp_path / "controller/bin/flota"),)
    assert pinned("controller", str(mine)) == str(tmp_path / "controller/bin/flota")
    assert pinned("controller", str(tmp_path / "venv")) == "", "no release of a host"
    (tmp_path / "controller").unlink()
    (tmp_path / "controller").symlink_to("releases/3")
    assert pinned("controller", str(mine)) == "", "one that is gone"


def test_settings_on_trial_are_kept_only_when_they_worked(tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    with pytest.raises(Unavailable), remembered.trial(root, {"name": "n1"}) as changed:
        assert changed and remembered.load(root) == {"name": "n1"}
        raise Unavailable("no")
    assert remembered.load(root) == {} and not (tmp_path / "root/settings.json").exists()
    with remembered.trial(root, {"name": "n1"}):
        pass
    with pytest.raises(Unavailable), remembered.trial(root, {"name": "n2"}):
        raise Unavailable("no")
    with remembered.trial(root, {"name": "n1"}) as changed:
        assert not changed
