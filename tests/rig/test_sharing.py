"""Containers of one image share it on disk and in memory, keep what they write, see only themselves."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.busybox import root_tar
from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.support import local_pid

pytestmark = pytest.mark.rig
MANY = 50
BIG = "big:1"
SIZE = 300 << 20


@pytest.fixture(scope="module")
def big_image(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """busybox and a file of 300 MB that does not compress."""
    path = tmp_path_factory.mktemp("big") / "root.tar"
    path.write_bytes(root_tar())
    with tarfile.open(path, "a") as archive:
        entry = tarfile.TarInfo("data")
        entry.size = SIZE
        archive.addfile(entry, io.BytesIO(os.urandom(1 << 20) * 300))
    with open(path, "rb") as file:
        command = [*fleet.rig.enter("n1"), "flota", "import", "--node", "n1", "-", BIG]
        path_env = {**os.environ, "PATH": f"{Path(os.sys.executable).parent}:{os.environ['PATH']}"}
        subprocess.run(command, stdin=file, check=True, timeout=120, env=path_env)
    path.unlink()
    return BIG


def used(fleet: Fleet) -> int:
    words = ["du", "-s", "-x", "--block-size=1", "/var/lib/flota"]
    return int(fleet.rig.exec("n1", words).stdout.split()[0])


def busybox_pages(pid: int) -> tuple[int, int]:
    """(resident, proportional) kilobytes of the program file's mappings in a process."""
    resident = proportional = 0
    counting = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            counting = words[-1].endswith("/bin/busybox")
        elif counting and words[0] == "Rss:":
            resident += int(words[1])
        elif counting and words[0] == "Pss:":
            proportional += int(words[1])
    return resident, proportional


@pytest.mark.slow
def test_fifty_containers_share_their_image_on_disk_and_in_memory(clean: Fleet, big_image: str) -> None:
    before = used(clean)

    def start(index: int) -> None:
        words = ("--name", f"m{index}", "--node", "n1", "--network", "none", big_image, "sleep", "9999")
        clean.flota("n1", "run", "-d", *words)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(MANY)))
    assert (used(clean) - before) / MANY < 2 << 20
    pids = [local_pid(clean, "n1", i["status"]["pid"]) for i in clean.json("ps")]
    assert len(pids) == MANY
    pages = [busybox_pages(pid) for pid in pids]
    assert sum(p for _, p in pages) < 0.2 * sum(r for r, _ in pages)
    clean.flota("n1", "exec", "m0", "sh", "-c", "echo changed >> /data; echo mine > /tmp/x")
    tail = ("sh", "-c", "tail -c 8 /data | od -c | head -1; ls /tmp; wc -c < /data")
    changed, other = (clean.flota("n1", "exec", name, *tail) for name in ("m0", "m1"))
    assert "c   h   a   n   g   e   d" in changed and "x" in changed
    assert "h   a   n   g" not in other and str(SIZE) in other and "x\n" not in other


def test_a_container_sees_only_itself(clean: Fleet) -> None:
    clean.flota(
        "n1", "run", "-d", "--name", "lone", "--node", "n1", "--hostname", "lone", IMAGE, "sleep", "9999"
    )

    def inside(script: str) -> str:
        return clean.flota("n1", "exec", "lone", "sh", "-c", script)

    assert inside("hostname").strip() == "lone"
    assert inside("cat /proc/1/cmdline | tr '\\0' ' '").strip() == "sleep 9999"
    pids = {int(p) for p in inside("ls /proc").split() if p.isdigit()}
    assert max(pids) < 100 and len(pids) <= 4
    assert inside("ls /sys/class/net").split() == ["eth0", "lo"]
    assert inside("ls -l /proc/1/fd | awk 'NR>1 {print $9}'").split() == ["0", "1", "2"]
    host_disk = os.path.basename(os.path.realpath("/dev/root")) if os.path.exists("/dev/root") else "vda"
    assert host_disk not in inside("ls /dev").split()
    here = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "mnt", "uts", "net", "ipc")}
    for kind, link in here.items():
        assert inside(f"readlink /proc/self/ns/{kind}").strip() != link
    assert "Seccomp:\t2" in inside("cat /proc/self/status")
    assert inside("ipcs -s | wc -l; mount | grep -c /var/lib/flota || true").split()[-1] in {
        "0",
        "1",
        "2",
        "3",
    }


def test_limits_of_memory_cpu_and_processes_are_felt(clean: Fleet) -> None:
    done = clean.attempt("n1", "run", "--name", "hog", "--memory", "32m", IMAGE, "sh", "-c",
                         "head -c 200m /dev/zero | tail > /dev/null")  # fmt: skip
    status = clean.json("inspect", "hog")[0]["status"]
    assert done.returncode in (137, 1) and status["oom_killed"]
    done = clean.attempt("n1", "run", "--rm", "--pids-limit", "8", IMAGE, "sh", "-c",
                         "for i in $(seq 20); do sleep 5 & done; wait")  # fmt: skip
    assert b"fork" in done.stderr
    script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max"
    assert clean.flota("n1", "run", "--rm", "--cpus", "0.5", IMAGE, "sh", "-c", script).strip() == "50000"
