"""Folders of exec'd processes: each goes with its process's end, whichever agent sees it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from agent.runtime import execfolder
from aio.processes import process_started
from model.status import Phase
from tests.support.agentlab import AgentLab, ident, instance, phase, view
from tests.support.waiting import until


async def conmon(directory: str) -> asyncio.subprocess.Process:
    """Somebody who works there until its stdin ends, and leaves its exit as conmon does."""
    script = 'read line; echo 7 > "$1/exit"'
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", script, "sh", directory), stdin=asyncio.subprocess.PIPE
    )
    Path(directory, "conmon.pid").write_text(str(process.pid))
    return process


async def over(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()


async def test_exec_folders_of_another_agent_go_once_their_process_is_over(tmp_path: Path) -> None:
    dead, strange, lives = (execfolder.make(str(tmp_path)) for _ in range(3))
    Path(dead, "exit").write_text("0")
    Path(strange, "conmon.pid").write_text(str(os.getpid()))
    process = await conmon(lives)
    execfolder.adopt(str(tmp_path))
    assert os.listdir(tmp_path / "exec") == [os.path.basename(lives)]
    await over(process)
    await until(lambda: not os.listdir(tmp_path / "exec"), deadline=5)
    execfolder.adopt(str(tmp_path / "none"))


async def test_exec_folder_is_gone_when_the_exit_is_known(tmp_path: Path) -> None:
    directory = execfolder.make(str(tmp_path))
    process = await conmon(directory)
    started = process_started(process.pid)
    assert started is not None
    ended = execfolder.watch(directory, process.pid, started)
    await over(process)
    async with asyncio.timeout(5):
        assert (await ended).code == 7
    assert not os.path.exists(directory)


async def test_agent_adopts_the_execs_of_containers_that_run(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance()))
        await phase(agent, 1, Phase.RUNNING)
        bundle = str(agent.context.bundle(ident(1)))
        assert ("adopt", bundle) not in lab.runtime.calls
    async with lab.agent():
        assert ("adopt", bundle) in lab.runtime.calls
