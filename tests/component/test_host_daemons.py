"""The words that start a host's daemons again, run by a real shell with a program in flota's place."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy import hostdaemons

FLOTA = """#!/bin/sh
echo "$*" >>"{log}"
[ ! -e "{folder}/refuses-$1" ] || {{ echo "flota: the $1 did not start: it is broken" >&2; exit 1; }}
"""


class Host:
    def __init__(self, folder: Path) -> None:
        self.log, self.flota, self.state = folder / "log", folder / "flota", folder / "controller"
        self.folder = folder
        self.flota.write_text(FLOTA.format(log=self.log, folder=folder))
        self.flota.chmod(0o755)
        self.state.mkdir()

    def run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, capture_output=True, text=True, check=False)

    def restart(self, copy_for: str = "", daemon: str = "controller") -> subprocess.CompletedProcess[str]:
        self.log.unlink(missing_ok=True)
        places = {"program": str(self.flota), "state": str(self.state)}
        return self.run(hostdaemons.restart(daemon, copy_for=copy_for, **places))  # type: ignore[arg-type]

    def store(self, text: str, wal: str = "") -> None:
        (self.state / "store.db").write_text(text)
        (self.state / "store.db-wal").unlink(missing_ok=True)
        if wal:
            (self.state / "store.db-wal").write_text(wal)

    def files(self) -> dict[str, str]:
        found = (p for p in self.state.rglob("*") if p.is_file())
        return {p.relative_to(self.state).as_posix(): p.read_text().strip() for p in found}

    def put_back(self, left: str = "2-new") -> str:
        done = self.run(hostdaemons.put_back(left, program=str(self.flota), state=str(self.state)))
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_restart_stops_that_daemon_alone_and_starts_it(host: Host) -> None:
    assert host.restart(daemon="agent").returncode == 0
    assert host.log.read_text().splitlines() == ["down --only agent", "agent --detach"]
    assert host.files() == {}


def test_restart_of_a_daemon_that_does_not_start_ends_in_its_words(host: Host) -> None:
    (host.folder / "refuses-agent").touch()
    done = host.restart(daemon="agent")
    assert done.returncode == 1 and done.stderr.endswith("the agent did not start: it is broken\n")


def test_daemon_that_does_not_stop_is_not_started_again(host: Host) -> None:
    (host.folder / "refuses-down").touch()
    assert host.restart("2-new").returncode == 1
    assert host.log.read_text().splitlines() == ["down --only controller"] and host.files() == {}


def test_store_is_copied_between_stop_and_start_and_kept_under_the_old_release(host: Host) -> None:
    host.store("old", wal="log")
    assert host.restart("2-new").returncode == 0
    host.store("new")
    copy = {"store.upgrading/store.db": "old", "store.upgrading/store.db-wal": "log"}
    assert host.files() == {"store.db": "new", "store.upgrading/to": "2-new", **copy}
    for before in ("0-older", "1-old"):
        (host.state / "store.before-0-older").mkdir(exist_ok=True)
        assert host.run(hostdaemons.upgraded(before, state=str(host.state))).returncode == 0
        kept = [p.name for p in host.state.glob("store.*-*") if p.is_dir()]
        assert kept == ["store.before-0-older"], "the second time nothing is under way"


def test_run_that_was_cut_keeps_the_copy_of_before_the_first_attempt(host: Host) -> None:
    host.store("old")
    host.restart("2-new")
    host.store("written by the new one")
    host.restart("2-new")
    assert host.files()["store.upgrading/store.db"] == "old"
    host.restart("3-newer")
    assert host.files()["store.upgrading/store.db"] == "written by the new one"


def test_store_that_is_put_back_is_the_copy_and_nothing_of_the_new_one(host: Host) -> None:
    for log in ("", "old log"):
        host.store("old", wal=log)
        host.restart("2-new")
        host.store("new", wal="new log")
        (host.state / "store.db-shm").touch()
        assert host.put_back() == "put back\n"
        left = {"store.left/store.db": "new", "store.left/store.db-wal": "new log"}
        assert host.files() == {"store.db": "old", **({"store.db-wal": log} if log else {}), **left}
        assert host.log.read_text().splitlines()[-1] == "down --only controller"
    assert host.put_back() == "" and host.files()["store.db"] == "old", "without a copy it stays"


def test_copy_of_another_upgrade_is_not_put_back(host: Host) -> None:
    """One whose run was cut, after which the fleet went on: the way back from it fails days later."""
    host.store("old")
    host.restart("2-new")
    host.store("of days")
    assert host.put_back("1-old") == ""
    assert host.files()["store.db"] == "of days"


def test_store_that_a_command_has_changed_is_not_put_back_and_copied_anew_by_the_next_attempt(
    host: Host,
) -> None:
    host.store("old")
    host.restart("2-new")
    host.store("with a command of the new one")
    (host.state / "store.upgrading" / "confirmed").touch()
    assert host.put_back() == "taken\n" and host.files()["store.db"] == "with a command of the new one"
    host.restart("2-new")
    assert host.files()["store.upgrading/store.db"] == "with a command of the new one"
    assert "store.upgrading/confirmed" not in host.files()


def test_controller_that_was_never_switched_is_not_stopped_to_be_put_back(host: Host) -> None:
    host.flota.unlink()
    assert host.put_back() == ""


@pytest.mark.parametrize("knows", [True, False])
def test_store_that_was_put_back_is_restored_in_place_by_a_flota_that_knows_how(
    host: Host, knows: bool
) -> None:
    host.flota.write_text(
        f'#!/bin/sh\n[ "$2" != --help ] || {{ echo "  --{"in-place" if knows else "x"}"; exit; }}\n'
        f'echo "$*" >>"{host.log}"\n'
    )
    done = host.run(hostdaemons.in_place(program=str(host.flota), state=str(host.state)))
    assert done.returncode == 0, done.stderr
    told = host.log.read_text().splitlines() if host.log.exists() else []
    assert told == ([f"restore --in-place --root {host.folder}"] if knows else [])


def test_controller_without_a_file_of_its_own_is_started_all_the_same(host: Host) -> None:
    assert host.restart("2-new").returncode == 0 and host.files() == {}
