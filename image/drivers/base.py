"""The StorageDriver seam: layers and a writable directory become a root that a container can run on.

Implementations: `overlay.OverlayDriver`, `btrfs.BtrfsDriver`, `vfs.VfsDriver`; contract:
tests/contract/test_storage_drivers.py. Calls block for a few system calls; the store runs them in a thread.
A layer's directory always has the same layers below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class StorageDriver(Protocol):
    @property
    def name(self) -> str: ...

    def prepare(self, folder: str, layers: Sequence[str]) -> None:
        """Make what `mount` needs below `folder`; `layers` are directories, bottom first. Idempotent."""
        ...

    def made(self, folder: str) -> bool:
        """Whether what is below `folder` was prepared by this driver."""
        ...

    def mount(self, folder: str, layers: Sequence[str]) -> str:
        """Mount the root; its path. Idempotent, also after a reboot."""
        ...

    def unmount(self, folder: str) -> None:
        """Idempotent; what was written stays."""
        ...

    def discard(self, folder: str) -> None:
        """Take away what goes faster than by deleting files one by one; the rest of `folder` is deleted by
        whoever calls. Idempotent."""
        ...

    def upper(self, folder: str) -> str:
        """Directory of what the container wrote, or empty where there is none apart from the root."""
        ...
