"""The StorageDriver seam: layers and a writable directory become a root that a container can run on.

Implementations: `overlay.OverlayDriver`, `vfs.VfsDriver`; contract: tests/contract/test_storage_drivers.py.
Calls block for a few system calls; the store runs them in a thread.
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

    def mount(self, folder: str, layers: Sequence[str]) -> str:
        """Mount the root; its path. Idempotent, also after a reboot."""
        ...

    def unmount(self, folder: str) -> None:
        """Idempotent; what was written stays."""
        ...

    def upper(self, folder: str) -> str:
        """Directory of what the container wrote, or empty where there is none apart from the root."""
        ...
