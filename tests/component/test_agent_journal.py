"""The agent's journal: what was awaited is there after a crash, one agent per folder, damage is told."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.journal import Journal
from agent.membership import Membership
from agent.record import Local
from model.directory import DirectoryDelta, Member
from model.errors import Damaged, FlotaError, InUse, Unavailable, Unsupported
from model.ids import HostId, InstanceId, NetworkId
from model.status import Phase

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import asyncio, sys
from pathlib import Path
from agent.journal import Journal
async def main():
    journal = await Journal.open(Path(sys.argv[1]))
    for number in range(10**9):
        await journal.put("n", "last", number, durable=sys.argv[2] == "durable")
        print(number, flush=True)
asyncio.run(main())
"""


def record(phase: Phase = Phase.RUNNING) -> Local:
    return Local(instance=InstanceId("1" * 64), phase=phase)


def killed_while_writing(folder: Path, mode: str) -> list[bytes]:
    """What a writer said it had written before it was killed."""
    argv = [sys.executable, "-c", WRITER, str(folder), mode]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        return seen + process.stdout.readlines()


async def test_what_was_awaited_is_read_back(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path)
    await journal.put("local", "a", record())
    await journal.write([("local", "b", b"\x80"), ("local", "a", None)])
    await journal.put("local", "c", record(Phase.EXITED), durable=False)
    await journal.close()
    again = await Journal.open(tmp_path)
    with pytest.raises(Damaged, match="local b"):
        again.read("local", Local)
    await again.delete("local", "b")
    await again.close()
    third = await Journal.open(tmp_path)
    assert {k: r.phase for k, r in third.read("local", Local).items()} == {"c": Phase.EXITED}
    await third.close()


@pytest.mark.parametrize("mode", ["durable", "written"])
async def test_a_killed_process_loses_nothing_that_it_awaited(tmp_path: Path, mode: str) -> None:
    seen = killed_while_writing(tmp_path, mode)
    journal = await Journal.open(tmp_path)
    whole = [line for line in seen if line.endswith(b"\n")]
    assert journal.read("n", int)["last"] >= int(whole[-1])
    await journal.close()


async def test_a_second_agent_on_one_folder_is_refused_with_the_firsts_pid(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path)
    with pytest.raises(InUse, match=f"pid {os.getpid()}"):
        await Journal.open(tmp_path)
    await journal.close()
    await (await Journal.open(tmp_path)).close()


async def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    await (await Journal.open(tmp_path)).close()
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database, " * 64)
    with pytest.raises(Damaged, match="Put a copy back"):
        await Journal.open(tmp_path)
    assert path.read_bytes().startswith(b"not a database")


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path)
    journal._connection.execute("PRAGMA user_version = 99")
    await journal.close()
    with pytest.raises(Unsupported, match="newer"):
        await Journal.open(tmp_path)


async def test_after_a_failed_sync_nothing_is_acknowledged_any_more(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path)
    await journal.put("n", "a", 1)
    os.close(journal._wal)
    journal._wal = os.open("/dev/null", os.O_RDONLY)  # fdatasync(2) fails on it: EINVAL
    with pytest.raises(Unavailable, match=os.strerror(errno.EINVAL)):
        await journal.put("n", "b", 2)
    failure = await asyncio.wait_for(asyncio.shield(journal.failed), 5)
    assert isinstance(failure, FlotaError)
    for durable in (True, False):
        with pytest.raises(Unavailable):
            await journal.put("n", "c", 3, durable=durable)
    await journal.close()


async def test_many_writes_at_once_share_their_syncs(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(20):
        for future in [journal.put("n", str(number), number) for number in range(2000)]:
            await future
    assert loop.time() - began < 10
    await journal.close()
    again = await Journal.open(tmp_path)
    assert len(again.read("n", int)) == 2000
    await again.close()


async def test_member_whose_address_is_none_is_neither_taken_nor_read_back(tmp_path: Path) -> None:
    network, bad = NetworkId("n"), Member(name="evil", host=HostId("h"), ipv4="0.0.0.0/0", ipv6="fd00::2")
    kept = {InstanceId("a"): replace(bad, ipv4="")}
    journal = await Journal.open(tmp_path)
    membership = Membership(journal)
    membership.take(DirectoryDelta(put={network: {InstanceId("a"): bad}}), whole=True)
    assert membership.directory.networks == {network: kept}
    await journal.put("member", f"{network}/a", bad)
    await journal.close()
    journal = await Journal.open(tmp_path)
    again = Membership(journal)
    again.read()
    assert again.directory.networks == {network: kept}
    await journal.close()
