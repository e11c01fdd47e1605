"""A folder that a layer is unpacked into by the real process, and beside it a victim that must stay as it is.

Invariants: every unpacking is measured in the child itself, and needs less than 256 MiB and 10 s of the
processor; what lies outside the target is the same afterwards, whatever the layer was.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MOST_MEMORY = 256 << 10
"""KiB, resident."""
MOST_TIME = 10.0
"""Seconds of the processor, which other work on the machine does not lengthen."""

_MEASURED = """
import resource, sys
from image.unpack import main
status = open("/proc/self/status")
code = main(sys.stdin.buffer, sys.stdout.buffer)
used = resource.getrusage(resource.RUSAGE_SELF)
sys.stderr.write(f"{used.ru_utime + used.ru_stime}\\n{status.read()}")
sys.exit(code)
"""


class LayerPlace:
    def __init__(self, base: Path) -> None:
        self.base = base
        self.target = base / "layer"
        self.target.mkdir(mode=0o755)
        self.victim = base / "victim"
        self.victim.mkdir(mode=0o750)
        (self.victim / "file").write_text("untouched")
        os.chmod(self.victim / "file", 0o640)
        (self.victim / "hello").write_text("secret")
        os.chmod(self.victim / "hello", 0o400)

    def census(self) -> list[tuple[Any, ...]]:
        """Everything outside the target, by name, inode, mode, links, times and content."""
        found = []
        for path in sorted([self.base, *self.victim.rglob("*"), self.victim]):
            s = os.lstat(path)
            content = path.read_bytes() if path.is_file() else b""
            names = sorted(os.listdir(path)) if path.is_dir() else []
            found.append(
                (str(path), s.st_ino, s.st_mode, s.st_nlink, s.st_mtime_ns, s.st_ctime_ns, content, names)
            )
        return found

    def unpack(self, data: bytes, **job: Any) -> dict[str, Any]:
        """Its result. AssertionError where it took too much."""
        result, said = self.run(("-c", _MEASURED), data, **job)
        spent, _, status = said.partition("\n")
        assert float(spent) < MOST_TIME, f"{spent} s of the processor"
        [peak] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        assert int(peak.split()[1]) < MOST_MEMORY, peak
        return result

    def run(self, program: Sequence[str], data: bytes, **job: Any) -> tuple[dict[str, Any], str]:
        """The result, and what it said beside."""
        blob = self.base.parent / f"{self.base.name}.blob"
        blob.write_bytes(data)
        order = {"source": {"path": str(blob)}, "target": str(self.target), **job}
        done = subprocess.run(
            [sys.executable, *program], input=json.dumps(order).encode(), capture_output=True, timeout=600
        )
        blob.unlink()
        result: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (1 if "error" in result else 0)
        return result, done.stderr.decode()
