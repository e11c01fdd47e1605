"""A small root file system out of Debian's busybox-static, for demos, tests and benchmarks."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Mapping

BUSYBOX = "/bin/busybox"
ACCOUNTS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false
"""
GROUPS = "root:x:0:\ndaemon:x:1:\nusers:x:100:nobody\nnogroup:x:65534:\n"
FOLDERS = dict.fromkeys(["bin", "dev", "etc", "home", "proc", "run", "sys", "var", "www"], 0o755) | {
    "root": 0o700,
    "tmp": 0o1777,
}


def root_tar(extra: Mapping[str, bytes] | None = None) -> bytes:
    """An uncompressed tar of busybox with all its applets, /etc/passwd and `extra` files (path → content)."""
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for folder, mode in FOLDERS.items():
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        with open(BUSYBOX, "rb") as file:
            _add(archive, "bin/busybox", file.read(), 0o755)
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
        files = {"etc/passwd": ACCOUNTS.encode(), "etc/group": GROUPS.encode(), **(extra or {})}
        for path, content in files.items():
            _add(archive, path, content, 0o644)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, path: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
