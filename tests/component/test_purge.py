"""Taking all of flota from a host: what can't be taken holds up nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.purge import delete_all, mounts_below, remove_cgroups, remove_slice
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


@pytest.mark.parametrize(
    ("name", "folders", "stopped"),
    [
        ("system.slice", ("ssh.service", "flota-aa.scope"), ["stop -- flota-aa.scope"]),
        ("system.slice", ("ssh.service",), []),
        ("a-b.slice", ("flota-aa.scope",), ["stop -- flota-aa.scope a-b.slice"]),
        ("flota.slice", ("",), ["stop -- flota.slice"]),
        ("flota.slice", (), []),
    ],
)
async def test_purge_stops_no_slice_that_somebody_else_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folders: tuple[str, ...], stopped: list[str]
) -> None:
    program, log = tmp_path / "bin/systemctl", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >>{log}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    root = tmp_path / "cgroup"
    root.mkdir()
    (root / "cgroup.controllers").touch()
    for folder in folders:
        (root / {"a-b.slice": "a.slice/a-b.slice"}.get(name, name) / folder).mkdir(parents=True)
    await remove_slice(name, str(root))
    assert (log.read_text().splitlines() if log.exists() else []) == stopped


def test_purge_takes_no_cgroup_of_others_from_the_top(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    for name in ("others/empty", "flota/aa"):
        (tmp_path / name).mkdir(parents=True)
    remove_cgroups("/", str(tmp_path))
    remove_cgroups("/flota", str(tmp_path))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cgroup.controllers", "empty", "others"]


@pytest.mark.parametrize(
    ("kept", "found"),
    [
        ("", ["/s/agent/volumes/a/_data", "/s/agent/volumes-old", "/s/agent/volumes", "/s/agent/r\u00a0t"]),
        ("/s/agent/volumes", ["/s/agent/volumes-old", "/s/agent/r\u00a0t"]),
    ],
)
def test_purge_leaves_mounted_what_is_mounted_in_volumes_that_are_kept(
    tmp_path: Path, kept: str, found: list[str]
) -> None:
    points = ("/", "/s", "/s/agent", "/s/agent/volumes", "/s/agent/volumes/a/_data", "/s/agent/volumes-old")
    lines = [f"1 1 0:1 / {point} rw - tmpfs none rw\n" for point in (*points, "/s/agent/r\\240t")]
    (tmp_path / "mountinfo").write_text("".join(lines))
    assert mounts_below(Path("/s/agent"), kept, str(tmp_path / "mountinfo")) == found
