"""Namespaces of a lane of `deploy/test`: `python -m tests.support.lane [--net] PROGRAM…` fills them.

Run inside fresh mount and pid namespaces, and with `--net` a network namespace. What others make at
the same time is then out of its sight: processes (an own /proc), named namespaces (/run/netns) and
links (/sys). cgroups, loop devices and switches of the kernel stay the machine's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from deploy.rig.init import mount, own_sysfs

NAMED = Path("/run/netns")


def prepare(*, links: bool) -> None:
    mount("--make-rprivate", "/")
    mount("-t", "proc", "proc", "/proc")
    NAMED.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(NAMED))
    if links:
        own_sysfs()
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


if __name__ == "__main__":
    own = sys.argv[1] == "--net"
    prepare(links=own)
    program = sys.argv[1 + own :]
    os.execvp(program[0], program)
