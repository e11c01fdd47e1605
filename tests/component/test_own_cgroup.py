"""A cgroup of its own, in a tree of files that looks like the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model.errors import CommandFailed
from net.supervise import cgroup


def hierarchy(root: Path, name: str, **files: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    for file, text in {"cgroup.procs": "", **files}.items():
        (folder / file.replace("_", ".")).write_text(text)
    return folder


def test_process_joins_every_hierarchy_of_v1_once(tmp_path: Path) -> None:
    pids, cpu = hierarchy(tmp_path, "pids"), hierarchy(tmp_path, "cpu,cpuacct")
    (tmp_path / "cpu").symlink_to(cpu)
    (tmp_path / "not-one").mkdir()
    assert cgroup.join("/flota-processes", str(tmp_path)) == []
    for folder in (pids, cpu):
        assert (folder / "flota-processes/cgroup.procs").read_text() == str(os.getpid())
    assert not (tmp_path / "not-one/flota-processes").exists()


def test_process_joins_the_one_hierarchy_of_v2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("")
    assert cgroup.join("flota-processes", str(tmp_path)) == []
    assert (tmp_path / "flota-processes/cgroup.procs").read_text() == str(os.getpid())


def test_new_cpuset_takes_what_is_above(tmp_path: Path) -> None:
    """The kernel makes the files with the folder; here they are there before."""
    made = hierarchy(tmp_path, "cpuset", cpuset_cpus="0-3\n", cpuset_mems="0\n")
    own = hierarchy(made, "flota-processes", cpuset_cpus="\n", cpuset_mems="\n")
    assert cgroup.join("flota-processes", str(tmp_path)) == []
    assert (own / "cpuset.cpus").read_text().strip() == "0-3"
    assert (own / "cpuset.mems").read_text().strip() == "0"


def test_hierarchy_that_takes_nobody_is_named_and_the_others_are_joined(tmp_path: Path) -> None:
    bad, good = hierarchy(tmp_path, "freezer"), hierarchy(tmp_path, "pids")
    (bad / "flota-processes").write_text("in the way")
    (word,) = cgroup.join("flota-processes", str(tmp_path))
    assert "freezer/flota-processes cannot be joined: File exists" in word
    assert (good / "flota-processes/cgroup.procs").exists()


def test_cgroup_that_somebody_is_in_stays_and_is_told(tmp_path: Path) -> None:
    hierarchy(tmp_path, "pids")
    cgroup.remove("flota-processes", str(tmp_path))
    (tmp_path / "pids/flota-processes").mkdir()
    cgroup.remove("flota-processes", str(tmp_path))
    cgroup.join("flota-processes", str(tmp_path))
    with pytest.raises(CommandFailed, match="cannot be removed"):
        cgroup.remove("flota-processes", str(tmp_path))
