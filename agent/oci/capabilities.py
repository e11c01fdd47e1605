"""Which capabilities a container holds: the profile's set, cap-add, cap-drop, privileged. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from agent.oci.facts import Profile
from model.errors import InvalidInput

# In the kernel's order (include/uapi/linux/capability.h): the position is the number.
_KERNEL = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
)
KERNEL = tuple(f"CAP_{name}" for name in _KERNEL.split())


def _set(names: str) -> frozenset[str]:
    return frozenset(f"CAP_{name}" for name in names.split())


STRICT = _set("CHOWN KILL NET_BIND_SERVICE SETGID SETUID")
DEFAULT = STRICT | _set("DAC_OVERRIDE FOWNER FSETID SETFCAP SETPCAP SYS_CHROOT")
DOCKER = DEFAULT | _set("AUDIT_WRITE MKNOD NET_RAW")
PROFILES: dict[Profile, frozenset[str]] = {"strict": STRICT, "default": DEFAULT, "docker": DOCKER}


def held(
    profile: Profile, add: Iterable[str], drop: Iterable[str], *, privileged: bool, available: int
) -> frozenset[str]:
    """By Docker's rules: with ALL in `add` everything but `drop`; with ALL in `drop` only `add`; else the
    profile's, plus `add`, minus `drop`. `available`: a mask of what can be given. Raises InvalidInput."""
    everything = frozenset(name for number, name in enumerate(KERNEL) if available >> number & 1)
    added, dropped = _names(add), _names(drop)
    if privileged:
        return everything
    if "ALL" in added:
        return everything - dropped
    if "ALL" in dropped:
        return added & everything
    return ((PROFILES[profile] | added) - dropped) & everything


def _names(words: Iterable[str]) -> frozenset[str]:
    names = set()
    for word in words:
        name = word.upper()
        if name != "ALL":
            name = name if name.startswith("CAP_") else f"CAP_{name}"
            if name not in KERNEL:
                raise InvalidInput(
                    f"unknown capability {word[:40]!r}", hint="Write for example NET_ADMIN or ALL"
                )
        names.add(name)
    return frozenset(names)


def ordered(names: frozenset[str]) -> list[str]:
    """In the kernel's order, so that equal input gives equal configurations."""
    return [name for name in KERNEL if name in names]


def oci(names: frozenset[str]) -> dict[str, list[str]]:
    """process.capabilities. Inheritable and ambient stay empty (CVE-2022-24769)."""
    words = ordered(names)
    return {"bounding": words, "effective": words, "permitted": words}
