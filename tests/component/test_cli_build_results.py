"""What a build gives back, and what a host that lies may do with it; interrupts, terminals, pruning."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import signal
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from image.build.base import Session
from model.build import (
    BuildRequest,
    Done,
    StepBegan,
    StepEnded,
    StepSaid,
    Typed,
)
from model.buildcache import CacheEntry, CachePrune
from model.errors import CommandFailed
from tests.component.test_cli_build import app, builds_by, fleet, requests
from tests.support.servedfleet import ServedFleet
from tests.support.waiting import wait_until

__all__ = ["app", "fleet"]


def archive() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in (("etc/motd", b"hello\n"), ("bin/sh", b"#!\n")):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o755
            tar.addfile(info, io.BytesIO(text))
    return data.getvalue()


async def sending(request: BuildRequest, session: Session) -> Done:
    async def pieces() -> AsyncIterator[bytes]:
        data = archive()
        for at in range(0, len(data), 1000):
            yield data[at : at + 1000]

    for number in range(len(request.outputs)):
        await session.send(number, pieces())
    return Done()


def test_outputs_are_written_as_a_folder_a_file_and_a_stream(
    fleet: ServedFleet, app: Path, tmp_path: Path
) -> None:
    builds_by(fleet, sending)
    folder, file = tmp_path / "out" / "deep", tmp_path / "x.tar"
    done = fleet.flota("build", "-o", str(folder), "-o", f"type=tar,dest={file}", "-o", "-", str(app))
    assert done.returncode == 0, done.stderr
    assert (folder / "etc/motd").read_text() == "hello\n" and (
        folder / "bin/sh"
    ).stat().st_mode & 0o777 == 0o755
    assert file.read_bytes() == done.stdout == archive()


def test_output_of_a_build_that_fails_leaves_no_file(fleet: ServedFleet, app: Path, tmp_path: Path) -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"part"
            raise CommandFailed("that was all")

        await session.send(0, pieces())
        return Done()

    builds_by(fleet, build)
    done = fleet.flota("build", "-o", f"type=oci,dest={tmp_path / 'x.tar'}", str(app))
    assert done.returncode == 1 and sorted(p.name for p in tmp_path.glob("*x*")) == []
    assert not list(tmp_path.glob(".flota-*"))


def hostile(*infos: tarfile.TarInfo) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    return data.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 1 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "infos",
    [
        (entry("../evil"),),
        (entry("a", tarfile.SYMTYPE, ".."), entry("a/evil")),
        (entry("a", tarfile.LNKTYPE, "../sentinel"), entry("a")),
    ],
)
def test_output_of_a_host_that_lies_leaves_what_is_outside_alone(
    fleet: ServedFleet, app: Path, tmp_path: Path, infos: tuple[tarfile.TarInfo, ...]
) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / "sentinel").write_text("untouched")

    async def build(request: BuildRequest, session: Session) -> Done:
        async def pieces() -> AsyncIterator[bytes]:
            yield hostile(*infos)

        await session.send(0, pieces())
        return Done()

    builds_by(fleet, build)
    done = fleet.flota("build", "-o", str(top / "out"), str(app))
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert (top / "sentinel").read_text() == "untouched"
    assert sorted(p.name for p in top.iterdir()) == ["out", "sentinel"]


async def endless(request: BuildRequest, session: Session) -> Done:
    session.tell(StepBegan(step=1, name="RUN sleep"))
    await asyncio.Event().wait()
    return Done()


def test_interrupt_ends_the_build_at_once_on_both_sides(fleet: ServedFleet, app: Path) -> None:
    builds_by(fleet, endless)
    with subprocess.Popen(fleet.command("build", str(app)), env=fleet.environment(),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # fmt: skip
        wait_until(lambda: requests(fleet), deadline=20)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr is not None and b"Traceback" not in process.stderr.read()
    wait_until(lambda: [h for h in fleet.fleet.hosts.values() if h.broken], deadline=20)


def test_host_that_is_lost_is_told_in_words(fleet: ServedFleet, app: Path) -> None:
    builds_by(fleet, endless)
    with subprocess.Popen(fleet.command("build", str(app)), env=fleet.environment(),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # fmt: skip
        wait_until(lambda: requests(fleet), deadline=20)

        async def lost() -> None:
            fleet.fleet.give_up("host n1 was lost")

        fleet.do(lost)
        assert process.wait(10) == 1
        assert process.stderr is not None and b"flota: host n1 was lost" in process.stderr.read()


def test_live_progress_takes_no_more_lines_than_the_terminal_has(fleet: ServedFleet, app: Path) -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        for number in range(1, 60):
            session.tell(StepBegan(step=number, name=f"[{number}/60] RUN " + "x" * 200))
            session.tell(StepSaid(step=number, data=b"evil \x1b[2J\x1b[1000A text\n" * 5))
        await asyncio.sleep(0.5)
        return Done()

    builds_by(fleet, build)
    main, side = pty.openpty()
    os.set_blocking(main, False)
    import fcntl
    import struct
    import termios

    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 60, 0, 0))
    seen = b""
    with subprocess.Popen(fleet.command("build", str(app)), env=fleet.environment(TERM="xterm"),
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=side) as process:  # fmt: skip
        os.close(side)
        while process.poll() is None:
            try:
                seen += os.read(main, 1 << 16)
            except BlockingIOError:
                pass
            except OSError:
                break
    os.close(main)
    assert process.returncode == 0
    pictures = seen.decode().split("\x1b[J")
    assert len(pictures) > 2 and b"\x1b[2J" not in seen and b"\x1b[1000A" not in seen
    for picture in pictures:
        lines = [line for line in picture.split("\r\n") if line and not line.startswith("\x1b")]
        assert len(lines) <= 12 and all(len(line.rstrip("\r")) < 60 for line in lines), picture


def test_shell_in_a_failed_step_gets_what_is_typed(fleet: ServedFleet, app: Path) -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        assert request.on_failure == "shell"
        session.tell(StepBegan(step=1, name="RUN false"))
        typed = b""
        async for one in await session.shell(1):
            assert isinstance(one, Typed)
            typed += one.data
            session.tell(StepSaid(step=1, data=b"you said " + one.data))
        session.tell(StepEnded(step=1, error="exit code 1"))
        raise CommandFailed(f"the shell heard {typed!r}")

    builds_by(fleet, build)
    done = fleet.flota("build", "--on-failure", "shell", str(app), stdin=b"ls\n")
    assert done.returncode == 1 and done.stdout == b"you said ls\n"
    assert b"the shell heard b'ls\\n'" in done.stderr


def test_system_prune_takes_away_what_nothing_uses_of_every_kind(fleet: ServedFleet) -> None:
    host = next(iter(fleet.fleet.hosts.values()))
    host.cached = [CacheEntry(id="c" * 64, size=2000)]
    fleet.flota("run", "--name", "over", "box:1", "true")
    said = fleet.ok("system", "prune", "-f").splitlines()
    titles = [line for line in said if line.endswith(":") and not line.startswith("n")]
    assert titles == ["Containers:", "Networks:", "Images:", "Build cache:"]
    assert fleet.json("ps", "-a") == [] and said[-1] == "Total reclaimed space: 2kB"
    assert fleet.flota("system", "prune").returncode != 0  # nobody is there to say yes


def test_build_cache_is_listed_and_pruned_on_every_host(fleet: ServedFleet) -> None:
    for number, host in enumerate(fleet.fleet.hosts.values()):
        host.cached = [
            CacheEntry(id=f"{number:064x}", kind="run", source="RUN make", size=1000),
            CacheEntry(id=f"{number + 9:064x}", kind="mount", source="go", size=500, in_use=True),
        ]
    lines = fleet.ok("builder", "du").splitlines()
    assert lines[0].split() == ["ID", "NODE", "TYPE", "SIZE", "LAST", "USED", "SHARED", "WHAT"]
    assert [line.split()[1] for line in lines[1:-2]] == ["n1", "n1", "n2", "n2", "n3", "n3"]
    assert lines[-2:] == ["Reclaimable: 3kB", "Total: 4.5kB"]
    assert len(fleet.json("builder", "du", "--filter", "type=mount")) == 3
    said = fleet.ok("builder", "prune", "-f", "--keep-storage", "1k", "--filter", "until=24h", "--node", "n2")
    assert said.splitlines()[-1] == "Total reclaimed space: 1.5kB"
    [host] = [h for h in fleet.fleet.hosts.values() if h.prunes]
    assert host.name == "n2" and host.prunes == [CachePrune(unused_for=86400.0, keep=1024)]
    assert fleet.flota("builder", "prune").returncode != 0  # nobody is there to say yes
