"""A program on many hosts: its lines as they come, whole, each with its host's name."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from deploy.hostwork import MOST_LINE, Line, Lines, exit_code, run_everywhere
from deploy.inventory import LOCAL, Target
from deploy.local import LocalTransport
from deploy.roster import KnownHost
from deploy.transport import Streaming
from model.errors import Unavailable
from tests.support.waiting import until

HOSTS = tuple(KnownHost(name=name, host_id=name, target=Target(host=name)) for name in ("n1", "n2", "gone"))


async def connect(target: Target) -> Streaming:
    if target.host == "gone":
        raise Unavailable(f"{target}: no route")
    return LocalTransport()


async def test_lines_are_told_while_the_program_still_runs(tmp_path: Path) -> None:
    said: list[Line] = []
    script = (
        f"echo first; echo wrong >&2; while ! [ -e {tmp_path}/go ]; do sleep 0.05; done; printf last; exit 3"
    )
    running = asyncio.create_task(
        run_everywhere(
            connect, HOSTS, ["sh", "-c", script], root=False, timeout=60, parallel=8, told=said.append
        )
    )
    try:
        await until(lambda: len(said) == 5, deadline=30)
        assert not running.done()
        (tmp_path / "go").touch()
        ran = await running
    finally:
        running.cancel()
    assert [(one.name, one.code) for one in ran] == [("n1", 3), ("n2", 3), ("gone", 255)]
    assert exit_code(ran) == 3
    for name in ("n1", "n2"):
        assert [line.text for line in said if line.name == name and line.stream == 1] == ["first", "last"]
        assert [line.text for line in said if line.name == name and line.stream == 2] == ["wrong"]
    assert [line for line in said if line.name == "gone"] == [
        Line(name="gone", text="gone: no route", stream=2)
    ]


async def test_program_that_is_not_there_is_told_in_words() -> None:
    said: list[Line] = []
    hosts = [KnownHost(name="me", host_id="m", target=Target(host=LOCAL))]
    ran = await run_everywhere(
        connect, hosts, ["/no/such"], root=False, timeout=60, parallel=1, told=said.append
    )
    assert ran[0].code == 127 and "cannot run /no/such" in said[0].text and said[0].stream == 2


async def test_reader_that_is_gone_ends_the_command_and_the_programs(tmp_path: Path) -> None:
    def told(line: Line) -> None:
        raise BrokenPipeError

    script = f"echo $$ >>{tmp_path}/pids; echo said; exec sleep 1000"
    with pytest.raises(BrokenPipeError):
        async with asyncio.timeout(30):
            await run_everywhere(
                connect, HOSTS[:2], ["sh", "-c", script], root=False, timeout=60, parallel=8, told=told
            )
    for pid in (tmp_path / "pids").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_lines_are_whole_however_their_bytes_come() -> None:
    said: list[Line] = []
    lines = Lines("n1", said.append)
    for part in (b"on", b"e\r\ntw", b"o\n\n", "grüß".encode()[:3], "grüß".encode()[3:]):
        lines.heard(1, part)
    lines.heard(2, b"aside")
    assert [line.text for line in said] == ["one", "two", ""]
    lines.end()
    assert [line.text for line in said[3:]] == ["grüß", "aside"]
    lines.heard(1, b"x" * (MOST_LINE + 1))
    assert len(said[-1].text) == MOST_LINE + 1, "one that does not end is not kept for ever"
