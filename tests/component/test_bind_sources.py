"""Directories of the host that a container gets: found, made, or named as missing."""

from __future__ import annotations

from pathlib import Path

from model.spec import Mount
from model.status import Phase
from tests.support.agentlab import AgentLab, ident, instance, phase, view


async def test_bind_source_is_made_only_where_that_is_asked_for(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path / "lab")
    made = Mount(type="bind", source=str(tmp_path / "a/b"), target="/in", create_source=True)
    found = Mount(type="bind", source=str(tmp_path / "a"), target="/in")
    missing = Mount(type="bind", source=str(tmp_path / "none"), target="/in")
    async with lab.agent() as agent:
        await agent.take_view(view(instance(1, mounts=(made,)), instance(2, mounts=(missing,))))
        await phase(agent, 1, Phase.RUNNING)
        assert (tmp_path / "a/b").stat().st_mode & 0o7777 == 0o755
        failed = await phase(agent, 2, Phase.FAILED)
        assert failed.message.startswith(f"bind source {missing.source} does not exist on this host")
        assert not (tmp_path / "none").exists()
        await agent.take_view(view(instance(3, mounts=(found,)), revision=2))
        await phase(agent, 3, Phase.RUNNING)
        mounts = lab.runtime.bundle(ident(3)).config["mounts"]
        assert found.source in [mount["source"] for mount in mounts]
