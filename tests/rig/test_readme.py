"""The README's transcript, typed into one shell, command by command, against what it promises."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import pytest

from tests.support import census
from tests.support.transcript import Step, steps

pytestmark = pytest.mark.rig
ROOT = Path(__file__).resolve().parents[2]


class Shell:
    """One bash that keeps what `export` set; `sudo` is what it is to root: nothing."""

    def __init__(self) -> None:
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._do('sudo() { "$@"; }')

    def _do(self, command: str) -> tuple[int, str]:
        assert self._bash.stdin is not None and self._bash.stdout is not None
        mark = uuid.uuid4().hex
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null\necho {mark} $?\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._bash.stdout:
            before, found, code = line.partition(mark)
            if found:
                return int(code), "".join(lines) + before
            lines.append(line)
        raise AssertionError(f"the shell ended at: {command}")

    def run(self, step: Step) -> None:
        code, said = self._do(step.command)
        assert code == 0, f"$ {step.command}\nended with {code}: {said}"
        assert step.fits(said), f"$ {step.command}\npromised {step.output}\nsaid {said}"

    def close(self) -> None:
        self._bash.communicate("exit\n")


@pytest.mark.timeout(300)
def test_the_readme_does_what_it_says_and_leaves_nothing() -> None:
    with census.unchanged([Path("/var/lib/flota-demo"), Path("/run/flota-demo")]):
        shell = Shell()
        try:
            for step in steps(ROOT / "README.md", "demo"):
                shell.run(step)
        finally:
            subprocess.run([str(ROOT / "deploy" / "demo"), "--down"], check=True, capture_output=True)
            shell.close()
