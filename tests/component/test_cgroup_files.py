"""What cgroup files say, by both drivers, in a tree of files that looks like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import stats
from agent.cgroup import CgroupFiles, provide
from agent.oci import cgroups
from agent.runtime.sweep import sweep
from model.errors import DeadlineExceeded

V2 = {
    "cgroup.procs": "41\n42\n",
    "pids.current": "3\n",
    "pids.max": "100\n",
    "memory.current": "5000000\n",
    "memory.max": "max\n",
    "memory.stat": "anon 1\ninactive_file 1000000\n",
    "memory.events": "low 0\noom 2\noom_kill 1\n",
    "cpu.stat": "usage_usec 1500\nuser_usec 1000\n",
    "io.stat": "8:0 rbytes=4096 wbytes=512 rios=1\n8:16 rbytes=4 wbytes=0 rios=1\n",
}


def tree(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tree(
        tmp_path / "cgroup",
        **{"cgroup.controllers": "cpu memory pids io\n", "cgroup.subtree_control": "cpu\n"},
    )


@pytest.mark.parametrize("parent", ["/flota", "flota.slice"])
def test_usage_of_a_container_on_v2_is_read_by_either_driver(root: Path, parent: str) -> None:
    tree(root / cgroups.place(parent, "abc"), **V2)
    files = CgroupFiles(str(root), parent)
    assert files.unified and files.path("abc") == cgroups.oci_path(parent, "abc")
    assert stats.usage(files, "abc") == stats.Usage(
        cpu_ns=1_500_000, memory=4_000_000, memory_limit=0, pids=3, pids_limit=100,
        block_read=4100, block_write=512, oom_kills=1,
    )  # fmt: skip
    assert stats.usage(files, "other") is None


def test_container_of_the_other_driver_is_still_found(root: Path) -> None:
    tree(root / "flota/old", **V2)
    tree(root / "flota.slice/flota-new.scope", **{**V2, "pids.current": "7\n"})
    files = CgroupFiles(str(root), "flota.slice", ("/flota", "flota.slice"))
    assert files.number("old", "pids", "pids.current") == 3
    assert files.number("new", "pids", "pids.current") == 7
    assert files.leaves("old") == [str(root / "flota/old")]


def test_processes_in_cgroups_of_the_containers_own_are_its_too(root: Path) -> None:
    own = tree(root / "flota/abc", **V2)
    tree(own / "init.scope", **{"cgroup.procs": "77\n"})
    assert sorted(CgroupFiles(str(root)).pids("abc")) == [41, 42, 77]


def test_container_is_counted_where_the_kernel_counts_nothing(root: Path) -> None:
    """A v2 subtree that was delegated without controllers."""
    tree(root / "flota/abc", **{"cgroup.procs": "41\n42\n"})
    assert stats.usage(CgroupFiles(str(root)), "abc") == stats.Usage(pids=2)


def test_v1_files_of_a_scope_are_in_each_hierarchy(tmp_path: Path) -> None:
    place = "flota.slice/flota-abc.scope"
    tree(tmp_path / "pids" / place, **{"pids.current": "2\n", "pids.max": "max\n"})
    tree(tmp_path / "memory" / place, **{"memory.usage_in_bytes": "4096\n"})
    files = CgroupFiles(str(tmp_path), "flota.slice")
    assert stats.usage(files, "abc") == stats.Usage(pids=2, memory=4096)
    assert sorted(files.leaves("abc")) == [str(tmp_path / name / place) for name in ("memory", "pids")]


def test_controllers_are_passed_on_down_to_our_parent(root: Path) -> None:
    for folder in ("a", "a/b"):
        tree(root / folder, **{"cgroup.controllers": "cpu memory pids\n", "cgroup.subtree_control": ""})
    assert provide("/a/b", str(root)) == []
    # each word is a write of its own, of which a plain file keeps the last
    assert (root / "cgroup.subtree_control").read_text() == "+io"
    assert (root / "a/cgroup.subtree_control").read_text() == "+pids"
    assert (root / "a/b/cgroup.subtree_control").read_text() == "+pids"


def test_controllers_that_are_not_to_be_had_are_told(root: Path) -> None:
    tree(root / "flota", **{"cgroup.controllers": "cpu\n", "cgroup.subtree_control": ""})
    (said,) = provide("/flota", str(root))
    assert said.startswith("containers' memory, pids can't be limited") and str(root / "flota") in said


def test_slices_are_left_to_systemd_and_v1_needs_nothing(root: Path, tmp_path: Path) -> None:
    assert provide("flota.slice", str(root)) == [] and not (root / "flota.slice").exists()
    assert (root / "cgroup.subtree_control").read_text() == "cpu\n"
    assert provide("/flota", str(tmp_path / "v1")) == []


async def test_what_a_killed_runtime_left_is_killed_whole_on_v2(root: Path) -> None:
    """Files stay in a folder here, so that it can't go: what counts is what was asked of the kernel."""
    own = tree(root / "flota.slice/flota-abc.scope", **{"cgroup.procs": "", "cgroup.kill": ""})
    files = CgroupFiles(str(root), "flota.slice")
    with pytest.raises(DeadlineExceeded):
        await sweep(files, "abc", deadline=0.05)
    assert (own / "cgroup.kill").read_text() == "1"
    for path in own.iterdir():
        path.unlink()
    (own / "nested").mkdir()
    await sweep(files, "abc", deadline=5)
    assert not own.exists()
