"""A filter of system calls for processes that read foreign bytes: whoever takes one over can start no program
in it, look into no other, and change no mount, namespace, key or module.

Refused with EPERM is what is named here; everything else is left to the capabilities that are gone. Numbers
are those of the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h),
the program is classic BPF over seccomp_data (seccomp(2)).
"""

from __future__ import annotations

import ctypes
import logging
import os
import struct
from collections.abc import Container, Mapping

log = logging.getLogger("flota.net")

REFUSED: Mapping[str, tuple[int, int]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kill": (62, 129),
    "pidfd_send_signal": (424, 424),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "memfd_create": (319, 279),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
}
"""Name → number on x86_64 and aarch64."""
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the table, and AUDIT_ARCH_… (linux/audit.h)."""
_X32 = 0x40000000
"""Numbers from here on are the x32 ABI's, which would go round the table."""
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCH = 0, 4
"""Offsets in seccomp_data."""
_ALLOW, _EPERM, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_PR_SET_SECCOMP, _FILTER = 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def confine(but: Container[str] = ()) -> None:
    """For this process from now on, but for calls of these names; it has no_new_privs already. Where the
    machine has no table here, or the kernel no filters, it is told in the log."""
    machine = os.uname().machine
    code = program(machine, but)
    if not code:
        log.warning("no filter of system calls for %s", machine)
        return
    made = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(made), 0, 0):
        log.warning("no filter of system calls: %s", os.strerror(ctypes.get_errno()))


def program(machine: str, but: Container[str] = ()) -> bytes:
    """The filter; empty for a machine that is not known."""
    if machine not in _MACHINES:
        return b""
    column, arch = _MACHINES[machine]
    numbers = sorted(pair[column] for name, pair in REFUSED.items() if name not in but)
    left = len(numbers)
    steps = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, left + 1, 0, _X32),
        *((_EQUAL, left - at, 0, number) for at, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _EPERM),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
