"""Trees with every kind of entry that a root file system can have, made and changed at random from a seed.

Equal seeds give equal trees, but for the times that the kernel sets itself.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from pathlib import Path

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
NAMES = (
    b"plain", b"with space", "h\u00e9llo".encode(), b"\xff\xfe\x80bytes", b"new\nline", b"-rf",
    b"back\\slash", b"quo'te\"", b"l" * 255, b"e\xcc\x81", b"\xc3\xa9", b"CASE", b"case",
    b"=", b".hidden", b"...", b"tab\there",
)  # fmt: skip
OWNERS = (0, 1, 1000, 65_534, 2_097_152, 3_000_000_000)
MODES = (0o644, 0o600, 0, 0o4755, 0o2755, 0o1777, 0o7777, 0o444)
TIMES = (0, 1, 1_500_000_000_123_456_789, -1_500_000_000, 4_000_000_000 * 10**9, 1_234_567_890 * 10**9)


class Wild:
    """Grows below `root`, a folder that is its own to change."""

    def __init__(self, root: Path, seed: int) -> None:
        self._root = os.fsencode(root)
        self._random = random.Random(seed)

    def grow(self, count: int) -> None:
        """So many more entries."""
        for number in range(count):
            folder = self._random.choice(self._folders())
            name = self._random.choice(NAMES) if self._random.random() < 0.4 else b"n%d" % number
            path = os.path.join(folder, name)
            if not os.path.lexists(path) and len(path) < 3500:
                self._entry(path)

    def change(self, count: int) -> None:
        """Entries go, are replaced by another kind, move, get other attributes; folders are made again."""
        for _ in range(count):
            others = self._all()
            if not others:
                return
            path = self._random.choice(others)
            act = self._random.choice(("gone", "again", "moved", "attributes", "content"))
            if act == "gone":
                _remove(path)
            elif act == "again":
                _remove(path)
                self._entry(path)
            elif act == "moved":
                target = path + b"-moved"
                if len(os.path.basename(target)) < 256 and not os.path.lexists(target):
                    os.rename(path, target)
            elif act == "attributes":
                self._attributes(path)
            elif stat.S_ISREG(os.lstat(path).st_mode):
                fd = os.open(path, os.O_WRONLY | os.O_APPEND)  # not O_CREAT: see proc(5), protected_regular
                os.write(fd, b"more")
                os.close(fd)

    def _folders(self) -> list[bytes]:
        return [self._root, *(p for p in self._all() if stat.S_ISDIR(os.lstat(p).st_mode))]

    def _all(self) -> list[bytes]:
        found = [os.path.join(base, name) for base, ds, fs in os.walk(self._root) for name in (*ds, *fs)]
        return sorted(path for path in found if not os.path.basename(path).startswith(b".wh."))

    def _entry(self, path: bytes) -> None:
        kind = self._random.choice(
            (
                "file",
                "file",
                "file",
                "folder",
                "folder",
                "symlink",
                "hard",
                "fifo",
                "device",
                "sparse",
                "empty",
            )
        )
        files = [p for p in self._all() if stat.S_IFMT(os.lstat(p).st_mode) in (stat.S_IFREG, stat.S_IFLNK)]
        if kind == "hard" and files:
            os.link(self._random.choice(files), path, follow_symlinks=False)
            return
        if kind == "folder":
            os.mkdir(path)
        elif kind == "symlink":
            os.symlink(self._random.choice((b"/etc/x", b"../up", b"plain", b"t" * 300, b"\xff")), path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            mode, device = self._random.choice(((stat.S_IFCHR, (1, 3)), (stat.S_IFBLK, (259, 70_000))))
            os.mknod(path, mode | 0o600, os.makedev(*device))
        else:
            with open(path, "wb") as file:
                if kind == "sparse":
                    file.seek(self._random.randrange(1 << 22))
                if kind != "empty":
                    file.write(self._random.randbytes(self._random.choice((1, 511, 512, 513, 70_000))))
        self._attributes(path)

    def _attributes(self, path: bytes) -> None:
        pick, status = self._random.choice, os.lstat(path)
        os.chown(path, pick(OWNERS), pick(OWNERS), follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(path, pick(MODES))
        if stat.S_ISREG(status.st_mode) and self._random.random() < 0.3:
            os.setxattr(path, "security.capability", CAPABILITY)
        if (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)) and self._random.random() < 0.3:
            os.setxattr(
                path, pick(("user.note", "user.\u00e9")), pick((b"", b"text", b"a\0=\nb", bytes(900)))
            )
        os.utime(path, ns=(1, pick(TIMES)), follow_symlinks=False)


def _remove(path: bytes) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)
