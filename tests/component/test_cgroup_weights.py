"""The cgroup of processes that work for all containers gets the processor before any one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from net.supervise import cgroup


@pytest.mark.parametrize(
    ("unified", "file", "weight"), [(False, "cpu.shares", 8192), (True, "cpu.weight", 800)]
)
def test_cgroup_is_preferred_where_its_kind_can_say_so(
    tmp_path: Path, unified: bool, file: str, weight: int
) -> None:
    hierarchy = tmp_path if unified else tmp_path / "cpu"
    folder = hierarchy / "flota-processes"
    folder.mkdir(parents=True)
    (hierarchy / "cgroup.procs").touch()
    (folder / file).write_text("100")
    cgroup.prefer("/flota-processes", str(tmp_path))
    assert (folder / file).read_text() == str(weight)
    (folder / file).unlink()
    cgroup.prefer("/flota-processes", str(tmp_path))
    assert not (folder / file).exists()
