"""What a container gets of its host by a bind, where the host's file system is not well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model.spec import Mount
from model.status import Phase
from tests.support.agentlab import AgentLab, instance, phase, view
from tests.support.hungfs import hung
from tests.support.waiting import until

pytestmark = pytest.mark.kernel


async def test_bind_source_on_a_file_system_that_hangs_fails_alone(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path / "lab")
    mount = Mount(type="bind", source=str(tmp_path / "hung/in"), target="/in", create_source=True)
    async with lab.agent() as agent:
        with hung(tmp_path / "hung") as asked:
            await agent.take_view(view(instance(1, mounts=(mount,)), instance(2)))
            await until(lambda: asked, deadline=5)
            await phase(agent, 2, Phase.RUNNING)
            failed = await phase(agent, 1, Phase.FAILED, deadline=15)
            assert "does not answer within" in failed.message

        def reaped() -> bool:
            return not any(os.path.exists(f"/proc/{pid}") for pid in asked)

        await until(reaped, deadline=5, what="those who asked are reaped")
