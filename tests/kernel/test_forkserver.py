"""Programs as forks: they end, fail and are killed as programs of their own do."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support import forkserver
from tests.support.containers import network_namespace
from tests.support.forkserver import Dialogue

pytestmark = pytest.mark.kernel
HERE = "/proc/self/ns/net"


def test_program_has_its_words_its_namespace_and_nothing_of_others() -> None:
    code = "import os, sys; print(sys.argv[1:], os.readlink('/proc/self/ns/net'), len(sys.stdin.read()))"
    with network_namespace() as place:
        for where in (place, HERE):
            said = forkserver.run(where, code, "one", "two words").stdout
            assert said == f"['one', 'two words'] {os.readlink(where)} 0\n"


STATUSES = {"pass": 0, "raise SystemExit(7)": 7, "raise SystemExit('words')": 1, "1 / 0": 1}


@pytest.mark.parametrize(("code", "status"), STATUSES.items())
def test_program_ends_with_its_status(code: str, status: int) -> None:
    done = forkserver.run(HERE, code, check=False)
    assert done.returncode == status
    assert ("ZeroDivisionError" in done.stderr) is (code == "1 / 0")


def test_program_that_fails_is_told_with_its_words() -> None:
    with pytest.raises(RuntimeError, match=r"one: 1: (.|\n)*OSError: no way"):
        forkserver.run(HERE, "raise OSError('no way')", "one")


def test_program_that_is_killed_leaves_what_it_began_and_its_caller_goes_on() -> None:
    code = "import os, time\nif pid := os.fork(): print(pid, flush=True)\ntime.sleep(60)"
    made = Dialogue(HERE, code)
    child = int(made.line())
    made.kill()
    os.kill(child, signal.SIGKILL)
