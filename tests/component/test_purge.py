"""Taking all of flota from a host: what can't be taken holds up nothing else."""

from __future__ import annotations

from pathlib import Path

from agent.purge import delete_all
from agent.runtime.base import Bundle
from agent.runtime.fake import FakeRuntime
from model.errors import DeadlineExceeded, FlotaError


async def test_purge_goes_on_after_a_container_that_does_not_die(tmp_path: Path) -> None:
    runtime, failures = FakeRuntime(), list[FlotaError]()
    for name in ("a", "b", "c"):
        config = {"process": {"args": ["serve"]}}
        await runtime.create(
            Bundle(id=name, directory=str(tmp_path / name), config=config, log_path=str(tmp_path / "log"))
        )
    stuck = DeadlineExceeded("container a did not die within 10 s of SIGKILL")
    runtime.fail("delete", stuck)
    await delete_all(runtime, failures)
    assert failures == [stuck] and list(await runtime.list()) == ["a"]
