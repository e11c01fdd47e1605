"""The census of a machine on which others have their own flota."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import census

OURS, THEIRS = "/srv/a tree", "/srv/a tree/2"


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Pids of what stands for flota's programs: those of a tree, of another one, and of nobody's."""
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "__init__.py").touch()
    (tmp_path / "cli" / "main.py").write_text("import sys\nprint(flush=True)\nsys.stdin.read()\n")
    (tmp_path / "flota").write_text("import cli.main\n")
    machine = tmp_path / "qemu-system-x86_64"
    machine.symlink_to("/bin/sh")
    wait = ["-c", "echo; read -r _"]
    plain = {key: value for key, value in os.environ.items() if key != census.TREE}
    starts = {
        "module": ([sys.executable, "-m", "cli.main", "agent"], {**plain, census.TREE: OURS}),
        "command": ([sys.executable, str(tmp_path / "flota"), "ps"], {**plain, census.TREE: OURS}),
        "another tree's": ([sys.executable, "-m", "cli.main", "agent"], {**plain, census.TREE: THEIRS}),
        "machine": ([str(machine), *wait], {**plain, census.TREE: OURS}),
        "another's machine": ([str(machine), *wait], plain),
        "installed": ([sys.executable, str(tmp_path / "flota"), "ps"], plain),
    }
    with ExitStack() as stack:
        running = {}
        for name, (argv, env) in starts.items():
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            process = stack.enter_context(
                subprocess.Popen(argv, env={**env, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path, **pipes)
            )
            assert process.stdout is not None and process.stdout.readline() == b"\n", name
            running[name] = process.pid
        yield running


def counted(programs: dict[str, int], tree: str) -> set[str]:
    lines = [line.split() for line in census.take(tree=tree) if line.startswith("process ")]
    pids = {int(words[1]) for words in lines}
    return {name for name, pid in programs.items() if pid in pids}


def test_flota_of_another_tree_and_an_installed_one_are_not_held_against_the_tests(
    programs: dict[str, int],
) -> None:
    assert counted(programs, OURS) == {"module", "command", "machine"}


def test_everybodys_flota_counts_where_no_tree_is_named(programs: dict[str, int]) -> None:
    assert counted(programs, "") == set(programs)
