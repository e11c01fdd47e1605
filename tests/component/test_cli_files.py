"""`flota cp`, `diff`, `export` and `commit` as commands: what goes over the wire, what is said, exit
codes."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakecontainers import FakeContainer
from tests.support.servedfleet import ServedFleet, served


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    with served(tmp_path) as made:
        made.ok("run", "-d", "--name", "box", "box:1", "sleep", "99")
        yield made


def box(fleet: ServedFleet) -> FakeContainer:
    [found] = [c for host in fleet.fleet.hosts.values() for c in host.containers.values()]
    return found


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


def test_file_comes_out_onto_a_name_into_a_directory_and_as_a_tar(fleet: ServedFleet, tmp_path: Path) -> None:
    done = fleet.flota("cp", "box:/etc/motd", str(tmp_path / "named"))
    assert (tmp_path / "named").read_bytes() == b"hello\n" and done.stdout == b""
    assert done.stderr.startswith(b"Successfully copied ")
    assert fleet.flota("cp", "-q", "box:/etc", str(tmp_path)).stderr == b""
    assert (tmp_path / "etc/motd").read_bytes() == b"hello\n"
    assert names(fleet.flota("cp", "box:/etc/motd", "-").stdout) == ["motd"]


def test_host_that_lies_puts_nothing_beside_what_was_asked_for(fleet: ServedFleet, tmp_path: Path) -> None:
    box(fleet).files.paths["/etc/../.profile"] = b"evil"
    for target in (tmp_path, tmp_path / "new"):
        done = fleet.flota("cp", "box:/etc", str(target))
        assert done.returncode == 1 and b"which nobody asked for" in done.stderr
        assert not (tmp_path / ".profile").exists()


def test_file_goes_in_as_a_tar_that_is_roots(fleet: ServedFleet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    fleet.ok("cp", str(tmp_path / "file"), "box:/etc")
    fleet.ok("cp", str(tmp_path / "file"), "box:/etc/motd")
    [(first, plain), (second, renamed)] = box(fleet).files.came
    assert (first, names(plain)) == ("/etc", ["file"])
    assert (second, names(renamed)) == ("/etc", ["motd"])
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        [info] = archive.getmembers()
    assert (info.uid, info.gid, info.size) == (0, 0, 3_000_000)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("a:/x", "b:/y"), 2, "copying between containers is not supported"),
        (("here", "there"), 2, "must specify at least one container source"),
        (("box:/nope", "x"), 1, "Could not find the file /nope in container box"),
        (("nobody:/etc", "x"), 1, "nobody"),
        (("/no/such/file", "box:/etc"), 1, "no such file or directory"),
        (("/etc/passwd/", "box:/etc"), 1, "lstat /etc/passwd/: not a directory"),
        (("box:/etc/motd", "/etc/passwd/"), 1, "not a directory"),
        (("-", "box:/etc/motd"), 1, 'destination "box:/etc/motd" must be a directory'),
        (("box:/etc", "/no/such/folder"), 1, 'directory "/no/such" does not exist'),
    ],
)
def test_copy_that_can_not_be_is_refused_in_dockers_words(
    fleet: ServedFleet, words: tuple[str, str], code: int, said: str
) -> None:
    done = fleet.flota("cp", *words)
    assert done.returncode == code and said in done.stderr.decode() and done.stderr.count(b"\n") <= 2


def test_diff_is_fit_for_a_terminal(fleet: ServedFleet) -> None:
    lines = fleet.ok("diff", "box").splitlines()
    assert lines[0] == "C /etc" and lines[1].startswith("A /etc/new") and "\x1b" not in lines[1]


def test_export_is_a_whole_file_or_none(fleet: ServedFleet, tmp_path: Path) -> None:
    fleet.ok("export", "-o", str(tmp_path / "out.tar"), "box")
    assert "etc/motd" in names((tmp_path / "out.tar").read_bytes())
    assert fleet.flota("export", "-o", str(tmp_path / "none.tar"), "nobody").returncode == 1
    assert sorted(path.name for path in tmp_path.glob("*.tar*")) == ["out.tar"]


def test_device_and_pipe_are_not_replaced_by_a_copy(fleet: ServedFleet, tmp_path: Path) -> None:
    place, told = tmp_path / "null", tmp_path / "told"
    os.mkfifo(place)
    told.symlink_to(tmp_path / "real.tar")
    (tmp_path / "real.tar").touch()
    for words in (("cp", "box:/etc/motd"), ("export", "box", "-o"), ("save", "box:1", "-o")):
        done = fleet.flota(*words, str(place))
        assert done.returncode == 1 and b"must be a directory or a regular file" in done.stderr
        assert stat.S_ISFIFO(os.lstat(place).st_mode)
    fleet.ok("export", "-o", str(told), "box")
    assert told.is_symlink() and "etc/motd" in names((tmp_path / "real.tar").read_bytes())
    assert sorted(path.name for path in tmp_path.glob("*part*")) == []


def test_commit_sends_what_was_asked_for(fleet: ServedFleet) -> None:
    ident = fleet.ok(
        "commit", "-a", "Ada", "-m", "why", "-c", "CMD x", "--pause=false", "box", "new:1"
    ).strip()
    assert ident.startswith("sha256:")
    [request] = [r for host in fleet.fleet.hosts.values() for r in host.commits]
    assert (request.ref, request.author, request.message) == ("new:1", "Ada", "why")
    assert request.changes == ("CMD x",) and not request.pause
