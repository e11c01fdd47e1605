"""A bundle of this flota, made and installed into a folder by the installer that hosts run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from deploy import hostdaemons, releases
from deploy.bundle import HOME, KEPT, Bundle, build
from deploy.releases import Aim, Installed, Pin
from model.errors import Damaged, Exhausted, FlotaError, InUse, NotFound, Unavailable
from tests.support import wheels
from tests.support.waiting import wait_until

INSTALLER = (HOME / "deploy" / "installer.py").read_bytes()
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
PYTHON = sys.executable


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    cache = tmp_path_factory.mktemp("cache")
    wheels.fill(cache)
    yield build(wheels.HERE, cache)
    shutil.rmtree(cache)


class Host:
    def __init__(self, root: Path) -> None:
        self.root = root / "opt"
        self.command = root / "bin" / "flota"

    def run(self, words: Sequence[str]) -> Installed:
        done = subprocess.run(words, input=INSTALLER, capture_output=True, env=CLEAN, check=False)
        return releases.answer("h1", done.returncode, done.stdout, done.stderr)

    def put(self, bundle: Bundle) -> Installed:
        before = self.run(releases.prepare(bundle.release, root=str(self.root), python=PYTHON))
        shutil.copy(bundle.path, releases.incoming(bundle.release, root=str(self.root)))
        return before

    def install(self, bundle: Bundle) -> Installed:
        self.put(bundle)
        return self.run(self.install_words(bundle))

    def install_words(self, bundle: Bundle) -> tuple[str, ...]:
        return releases.install(bundle.release, bundle.sha256, root=str(self.root), python=PYTHON)

    def switch(self, release: str, *daemons: str) -> Installed:
        places = {"root": str(self.root), "command": str(self.command), "python": PYTHON}
        return self.run(releases.switch(release, daemons or ("agent",), **places))

    def prune(self, *daemons: str) -> Installed:
        return self.run(releases.prune(daemons or ("agent",), root=str(self.root), python=PYTHON))

    def facts(self, release: str = "") -> Installed:
        return self.run(releases.facts(release, root=str(self.root), python=PYTHON))

    def twin(self, release: str, name: str) -> str:
        """A second release, as far as links and folders tell."""
        place = self.root / "releases"
        shutil.copytree(place / release, place / name, symlinks=True, copy_function=os.link)
        return name


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture(scope="module")
def installed(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = Host(tmp_path_factory.mktemp("installed"))
    made.install(bundle)
    yield made
    shutil.rmtree(made.root)


@pytest.fixture
def ready(installed: Host, tmp_path: Path) -> Host:
    """A host where the release is installed, and not the current one."""
    made = Host(tmp_path)
    shutil.copytree(installed.root, made.root, symlinks=True, copy_function=os.link)
    return made


def test_bundle_made_again_is_the_same_to_the_byte(bundle: Bundle, tmp_path: Path) -> None:
    wheels.fill(tmp_path)
    again = build(wheels.HERE, tmp_path)
    assert (again.release, again.sha256) == (bundle.release, bundle.sha256)
    with subprocess.Popen(["zcat", bundle.path], stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        head = one.stdout.read(512)
        one.kill()
    assert head.startswith(b"release.json\0")
    old = [tmp_path / f"flota-0.0.{number}-py3.11-x86_64-gnu.tar.gz" for number in range(KEPT + 3)]
    for number, path in enumerate(old):
        path.touch()
        os.utime(path, (number, number))
    assert build(wheels.HERE, tmp_path) == again, "the second time it comes from the cache"
    again.path.unlink()
    assert build(wheels.HERE, tmp_path) == again
    kept = set(tmp_path.glob("*.tar.gz"))
    assert kept == {again.path, *old[-KEPT + 1 :]}, "those used last"


def test_installed_release_runs_from_its_own_folder_and_is_told(bundle: Bundle, host: Host) -> None:
    assert host.put(bundle).present is False
    found = host.run(host.install_words(bundle))
    assert found.present and found.current == ""
    assert not list((host.root / "incoming").iterdir()), "the archive's room is given back"
    found = host.switch(bundle.release)
    assert (found.current, found.previous) == (bundle.release, "")

    said = subprocess.run(
        [host.command, "version"], capture_output=True, text=True, env={**CLEAN, "PYTHONPATH": str(HOME)}
    )
    assert bundle.release in said.stdout, said.stderr
    code = "import sys, cli, aio.release as r; print(sys.executable, cli.__file__, r.running())"
    python = host.root / "releases" / bundle.release / "bin" / "python"
    told = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, env=CLEAN, check=True)
    executable, module, release = told.stdout.split()
    assert executable == str(python)
    assert module.startswith(str(python.parents[1])) and release == bundle.release


def test_current_release_is_everybodys_though_its_folder_was_made_for_root_alone(
    bundle: Bundle, ready: Host
) -> None:
    ready.root.chmod(0o700)  # by what put the archive there, or root's umask
    ready.switch(bundle.release)
    assert ready.root.stat().st_mode & 0o777 == 0o755


def test_install_and_switch_again_change_nothing(bundle: Bundle, ready: Host) -> None:
    host = ready
    host.switch(bundle.release)
    folder = host.root / "releases" / bundle.release
    inode = folder.stat().st_ino
    again = host.install(bundle)
    assert folder.stat().st_ino == inode
    assert host.switch(bundle.release).previous == again.previous == ""


def test_switch_keeps_the_way_back_and_prune_what_is_needed(bundle: Bundle, ready: Host) -> None:
    host, first = ready, bundle.release
    second, third, fourth = (host.twin(first, name) for name in ("2-b", "3-c", "4-d"))
    for release in (first, second, third):
        host.switch(release)
    runner = host.root / "releases" / first / "bin" / "python"
    with subprocess.Popen([runner, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            wait_until(lambda: host.facts().running == (first,), deadline=10)
            found = host.prune()
            assert found.releases == tuple(sorted((first, second, third))), "the first one still runs"
            assert fourth not in found.releases
            with pytest.raises(InUse, match="processes run from"):
                host.run(releases.remove(root=str(host.root), command=str(host.command), python=PYTHON))
        finally:
            process.kill()
    assert host.prune().releases == (second, third)
    assert (found.current, found.previous) == (third, second)
    host.run(releases.remove(root=str(host.root), command=str(host.command), python=PYTHON))
    assert not host.root.exists() and not os.path.lexists(host.command)


def test_daemons_are_switched_each_for_itself_and_the_command_goes_with_the_agent(
    bundle: Bundle, ready: Host
) -> None:
    host, first = ready, bundle.release
    second = host.twin(first, "2-b")
    host.switch(first, "agent", "controller")
    found = host.switch(second, "controller")
    assert found.pins == {"agent": Pin(now=first), "controller": Pin(now=second, before=first)}
    assert (found.current, found.previous) == (first, "")
    found = host.switch(second, "agent")
    assert found.pins["agent"] == Pin(now=second, before=first) and found.current == second
    found = host.switch(first, "agent")
    assert found.pins["controller"] == Pin(now=second, before=first), "the way back is each one's own"
    assert (found.current, found.previous) == (first, second)


def test_host_of_the_layout_before_has_one_way_for_both_daemons(bundle: Bundle, ready: Host) -> None:
    host, first = ready, bundle.release
    second, third = host.twin(first, "2-b"), host.twin(first, "3-c")
    (host.root / "current").symlink_to(f"releases/{second}")
    (host.root / "previous").symlink_to(f"releases/{first}")
    found = host.facts()
    assert found.pins == {} and found.pin("agent") == found.pin("controller") == Pin(now=second, before=first)
    assert host.switch(second, "controller").pins == {"controller": Pin(now=second, before=first)}
    found = host.switch(third, "controller")
    assert found.pins == {"controller": Pin(now=third, before=second)} and found.current == second
    assert host.switch(third, "agent").pins["agent"] == Pin(now=third, before=second)


def test_controller_that_a_host_had_once_holds_no_release(bundle: Bundle, ready: Host) -> None:
    host, first = ready, bundle.release
    second, third = host.twin(first, "2-b"), host.twin(first, "3-c")
    host.switch(first, "agent", "controller")
    for release in (second, third):
        host.switch(release, "agent")
    found = host.prune("agent", "controller")
    assert found.releases == tuple(sorted((first, second, third)))
    found = host.prune("agent")
    assert found.releases == (second, third) and set(found.pins) == {"agent"}


def test_direction_of_a_run_is_on_the_disk_until_its_end(host: Host) -> None:
    host.root.mkdir(parents=True)
    aim = Aim(release="1-a", back=True, before={"agent": "2-b"})
    for words in (hostdaemons.begin(aim, root=str(host.root)), hostdaemons.end(root=str(host.root))):
        subprocess.run(words, check=True)
        assert host.facts().aim == (aim if "printf" in words[2] else None)
    subprocess.run(hostdaemons.end(root=str(host.root)), check=True)


def test_command_of_somebody_else_stays(bundle: Bundle, ready: Host) -> None:
    host = ready
    host.command.parent.mkdir()
    host.command.write_text("mine")
    host.switch(bundle.release)
    assert host.command.read_text() == "mine"
    host.run(releases.remove(root=str(host.root), command=str(host.command), python=PYTHON))
    assert host.command.read_text() == "mine"


def test_switch_to_a_release_that_is_not_there_is_refused(host: Host) -> None:
    with pytest.raises(NotFound, match="release 9-z is not on this host"):
        host.switch("9-z")


def test_bundle_that_was_changed_on_its_way_is_refused(bundle: Bundle, host: Host) -> None:
    host.put(bundle)
    with open(releases.incoming(bundle.release, root=str(host.root)), "r+b") as file:
        file.seek(100_000)
        file.write(b"x")
    with pytest.raises(Damaged, match="not what was sent"):
        host.run(host.install_words(bundle))
    assert not list((host.root / "releases").iterdir())


@pytest.mark.parametrize("name", ["site/../../../escaped", "other/file", "/etc/escaped"])
def test_archive_that_points_elsewhere_is_refused(host: Host, tmp_path: Path, name: str) -> None:
    import io
    import tarfile

    made = {"release": "1-a", "target": {"python": wheels.HERE.python}, "size": 1}
    path = tmp_path / "bad.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for entry, data in (("release.json", json.dumps(made).encode()), (name, b"x")):
            info = tarfile.TarInfo(entry)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    bad = Bundle(path=path, release="1-a", sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(Damaged, match="the bundle holds"):
        host.install(bad)
    assert not list((host.root / "releases").iterdir())
    assert not (tmp_path / "escaped").exists()


def test_install_killed_at_any_moment_leaves_nothing_half_made(bundle: Bundle, host: Host) -> None:
    for after in (0.05, 0.2, 0.4, 0.6, 0.8, 1.0):
        host.put(bundle)
        with subprocess.Popen(
            host.install_words(bundle), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=CLEAN
        ) as process:
            assert process.stdin is not None
            process.stdin.write(INSTALLER)
            process.stdin.close()
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        found = host.facts(bundle.release)
        assert found.present is bool(found.releases)
        for release in found.releases:
            host.twin(release, "whole")
            assert host.switch("whole").current == "whole"
            shutil.rmtree(host.root)
    assert host.install(bundle).present
    assert not [n for n in os.listdir(host.root / "releases") if n.startswith(".")]


def test_two_installations_at_once_are_refused(bundle: Bundle, host: Host) -> None:
    import fcntl

    host.put(bundle)
    with open(host.root / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="another installation"):
            host.run(host.install_words(bundle))
    assert host.facts().releases == ()


def test_old_python_says_what_is_needed(host: Host) -> None:
    old = INSTALLER.replace(b"LEAST = (3, 11)", b"LEAST = (3, 99)")
    done = subprocess.run(
        releases.facts(root=str(host.root), python=PYTHON), input=old, capture_output=True, check=False
    )
    with pytest.raises(FlotaError, match=r"h1: flota needs Python 3.11 or newer, this host's is 3\.\d+"):
        releases.answer("h1", done.returncode, done.stdout, done.stderr)


@pytest.mark.kernel
def test_full_disk_is_one_clear_error_and_its_room_is_given_back(bundle: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "small"
    root.mkdir()
    for size in ("60m", "100m"):  # refused before anything is written; while it is
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", root], check=True)
        try:
            host = Host(root)
            with pytest.raises(Exhausted, match=r"the disk of .* is full. Make room"):
                host.install(bundle)
            assert not list((host.root / "releases").iterdir())
            assert not list((host.root / "incoming").iterdir())
        finally:
            subprocess.run(["umount", root], check=True)
