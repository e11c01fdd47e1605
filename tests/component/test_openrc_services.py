"""Services of OpenRC written, started and taken away, with an rc-service that only says what it was asked."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cli.openrc import OpenRc, runs
from deploy import openrc
from deploy.openrc import AGENT, CONTROLLER, FOLDER
from deploy.units import Options
from model.errors import InUse, InvalidInput, Unavailable


class Services:
    """As far as we ask it. A service that starts says `words` in its log, and without any answers."""

    def __init__(self, root: Path, run: Path) -> None:
        self.started: set[str] = set()
        self.added: set[str] = set()
        self.words = ""
        self._root, self._run = root, run
        self._sockets = contextlib.ExitStack()

    def __call__(self, argv: Sequence[str], deadline: float) -> subprocess.CompletedProcess[str]:
        words = [word for word in argv if word != "--quiet"]
        match words:
            case ["rc-update", "add", service, "default"]:
                self.added.add(service)
            case ["rc-update", "delete", service, "default"]:
                self.added.discard(service)
            case ["rc-service", service, "status"]:
                return subprocess.CompletedProcess((), 0 if service in self.started else 3, "", "")
            case ["rc-service", service, "start"]:
                self._start(service)
            case ["rc-service", service, "stop"]:
                self.started.discard(service)
            case ["rc-service", _, "reload"]:
                pass
            case _:
                raise AssertionError(words)
        return subprocess.CompletedProcess((), 0, "", "")

    def _start(self, service: str) -> None:
        self.started.add(service)
        verb = service.removeprefix("flota-")
        if self.words:
            (self._root / "log" / f"{verb}.log").write_text(f"started\n{self.words}\n")
            return
        listening = self._sockets.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(self._run / ("flota.sock" if verb == "controller" else "agent.sock")))
        listening.listen()

    def close(self) -> None:
        self._sockets.close()


class Host:
    def __init__(self, folder: Path) -> None:
        self.top, self.root, self.run = (folder / name for name in ("top", "root", "run"))
        self.run.mkdir()
        self.services = Services(self.root, self.run)
        self.openrc = self.at(self.root)

    def at(self, root: Path) -> OpenRc:
        return OpenRc(str(root), str(self.run), call=self.services, top=str(self.top), deadline=0.3)

    def file(self, service: str) -> Path:
        return self.top / FOLDER.lstrip("/") / service


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.services.close()


def test_daemon_is_written_added_and_started_once(host: Host) -> None:
    assert host.openrc.start("agent") and not host.openrc.start("agent")
    assert host.services.started == host.services.added == {AGENT}
    assert host.file(AGENT).stat().st_mode & 0o777 == 0o755
    assert host.openrc.stop(["agent", "controller"]) == ["agent"]
    assert host.services.added == {AGENT}
    host.openrc.remove()
    assert host.services.added == set() and not host.file(AGENT).exists()


def test_start_that_fails_tells_the_daemons_words_and_leaves_nothing(host: Host) -> None:
    host.services.words = "flota: no runc on this host"
    with pytest.raises(Unavailable, match="the agent did not start: no runc on this host"):
        host.openrc.start("agent")
    assert host.services.started == host.services.added == set() and not host.file(AGENT).exists()


def test_daemon_that_says_nothing_and_does_not_answer_is_told(host: Host) -> None:
    host.services.words = "still trying"
    with pytest.raises(Unavailable, match=r"does not answer on .*flota\.sock"):
        host.openrc.start("controller")
    assert host.services.started == set()


def test_file_that_is_not_ours_is_left(host: Host, tmp_path: Path) -> None:
    host.file(CONTROLLER).parent.mkdir(parents=True)
    host.file(CONTROLLER).write_text("#!/sbin/openrc-run\ncommand=/bin/mine\n")
    with pytest.raises(InUse, match="not flota's own"):
        host.openrc.start("controller")
    host.openrc.start("agent")
    with pytest.raises(InUse, match=str(host.root)):
        host.at(tmp_path / "other").start("agent")
    host.at(tmp_path / "other").remove()
    assert host.file(CONTROLLER).exists() and host.file(AGENT).exists()


def test_script_is_one_of_the_shells_and_its_words_come_out_whole(tmp_path: Path) -> None:
    """The manager hands them to a shell twice."""
    options = Options(program=("/opt/a b/flota",), root="/srv/it's $HOME", run="/run/x")
    ((_, text),) = openrc.services(options, "agent").items()
    script = tmp_path / "service"
    script.write_text(f"{text}\neval printf \"'%s\\\\n'\" $command $command_args $output_log\n")
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=True)
    root = "/srv/it's $HOME"
    words = ["/opt/a b/flota", "agent", "--root", root, "--run", "/run/x", f"{root}/log/agent.log"]
    assert done.stdout.splitlines() == words
    assert openrc.folders(text) == ("/srv/it's $HOME", "/run/x")


def test_path_with_a_line_feed_is_refused() -> None:
    with pytest.raises(InvalidInput, match="service"):
        openrc.services(Options(program=("/f",), root="/a\nreboot"), "agent")


def test_openrc_runs_only_where_it_brought_the_host_up(tmp_path: Path) -> None:
    (tmp_path / "proc/1").mkdir(parents=True)
    comm = tmp_path / "proc/1/comm"
    comm.write_text("init\n")
    assert not runs(str(tmp_path))
    (tmp_path / "run/openrc").mkdir(parents=True)
    (tmp_path / "run/openrc/softlevel").touch()
    assert runs(str(tmp_path))
    comm.write_text("python3\n")
    assert not runs(str(tmp_path))
