"""A process that works on a stranger's files, once it is confined: nothing outside its root has a name, and
of root's powers only those over files are left, whatever the code that runs there would try."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until

KEPT = {0, 1, 2, 3, 4, 27, 31}
"""CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID MKNOD SETFCAP (capability.h)."""
SYS_CHROOT, SYS_ADMIN = 18, 21
_TRIES = """
import ctypes, errno, json, os, sys
from image.confine import into_root

status = open("/proc/self/status")
libc = ctypes.CDLL(None, use_errno=True)
into_root(sys.argv[1], **json.loads(sys.argv[2]))

def code(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    except MemoryError:
        return "memory"
    return ""

def mount():
    if libc.mount(b"none", b"/", b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "mount")

def unshare():
    if libc.unshare(0x00020000):
        raise OSError(ctypes.get_errno(), "unshare")

os.mkdir("deeper")
told = {
    "inside": sorted(os.listdir("/")),
    "up": sorted(os.listdir("/../../..")),
    "own": open("/file").read(),
    "chroot": code(lambda: os.chroot("deeper")),
    "mount": code(mount),
    "unshare": code(unshare),
    "setuid": code(lambda: os.setuid(1)),
    "nice": code(lambda: os.setpriority(os.PRIO_PROCESS, 0, -1)),
    "device": code(lambda: os.mknod("null", 0o020666, os.makedev(1, 3))),
    "owner": code(lambda: os.chown("/file", 5, 6)),
    "memory": code(lambda: bytearray(600 << 20)),
    "status": {key: value.strip() for key, value in (line.split(":", 1) for line in status)},
}
print(json.dumps(told))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("secret")
    place = tmp_path / "root"
    place.mkdir()
    (place / "file").write_text("inside")
    return place


def tried(root: Path, **more: bool) -> dict[str, Any]:
    """In mounts of its own: one that is `trusted` could change the machine's."""
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", _TRIES]
    words += [str(root), json.dumps(more)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def powers(mask: str) -> set[int]:
    return {number for number in range(64) if int(mask, 16) >> number & 1}


def test_confined_process_sees_its_root_and_has_powers_over_files_alone(root: Path) -> None:
    told = tried(root)
    assert told["inside"] == told["up"] == ["deeper", "file"] and told["own"] == "inside"
    for act in ("chroot", "mount", "unshare", "setuid"):
        assert told[act] == "EPERM", act
    assert told["nice"] in ("EPERM", "EACCES") and told["memory"] == "memory"
    assert (told["device"], told["owner"]) == ("", "")
    status = told["status"]
    assert status["NoNewPrivs"] == "1" and powers(status["CapInh"]) == set()
    for mask in ("CapEff", "CapPrm"):
        assert powers(status[mask]) <= KEPT, mask
    assert (root.parent / "outside").read_text() == "secret"


@pytest.mark.parametrize(("word", "power"), [("trusted", SYS_ADMIN), ("again", SYS_CHROOT)])
def test_confined_process_keeps_the_one_power_that_it_is_given(root: Path, word: str, power: int) -> None:
    status = tried(root, **{word: True})["status"]
    assert powers(status["CapEff"]) <= {*KEPT, power}
    before = Path("/proc/self/status").read_text().split("CapPrm:\t")[1].split()[0]
    assert (power in powers(status["CapEff"])) == (power in powers(before))


_PARENT = """
import os, signal, sys
from image.confine import die_with_parent
if os.fork() == 0:
    die_with_parent()
    print(os.getpid(), flush=True)
    signal.pause()
os.wait()
"""


def test_confined_process_ends_with_the_one_that_it_works_for() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert os.path.exists(f"/proc/{child}")
        parent.kill()

    def gone() -> bool:
        try:
            return "\nState:\tZ" in Path(f"/proc/{child}/status").read_text()
        except FileNotFoundError:
            return True

    wait_until(gone, deadline=30, what="the child has ended")
