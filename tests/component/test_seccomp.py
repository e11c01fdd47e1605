"""The filter of system calls, in a process of its own."""

from __future__ import annotations

import platform
import struct
import sys

import pytest

from aio import subprocess
from net.supervise.seccomp import REFUSED, program

CODE = """
import ctypes, os, signal, socket
from net.supervise import seccomp
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
seccomp.confine()
def tried(call, *words):
    try:
        return call(*words) or "done"
    except OSError as error:
        return error.strerror
a, b = socket.socketpair()
a.send(b"x")
print(tried(os.execv, "/bin/true", ["true"]), tried(os.kill, os.getpid(), 0), b.recv(1).decode(),
      tried(os.chroot, "/"), open("/proc/self/status").read().split("Seccomp:")[1].split()[0], sep=",")
"""


async def test_process_with_the_filter_starts_no_program_and_works_on() -> None:
    done = await subprocess.run([sys.executable, "-c", CODE], deadline=20)
    refused = "Operation not permitted"
    assert done.check().stdout.decode().strip() == f"{refused},{refused},x,{refused},2"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_program_refuses_what_is_named_and_the_other_abi_and_allows_the_rest(machine: str) -> None:
    column = ("x86_64", "aarch64").index(machine)
    arch = (0xC000003E, 0xC00000B7)[column]
    code = program(machine)
    for numbers in REFUSED.values():
        assert verdict(code, arch, numbers[column]) == 0x00050001
    for number in (0, 1, 20, 57, 200, 500):
        if number not in {pair[column] for pair in REFUSED.values()}:
            assert verdict(code, arch, number) == 0x7FFF0000
    assert verdict(code, arch, 0x40000000 + 59) == 0x00050001
    assert verdict(code, 0x40000003, 11) == 0x80000000, "another architecture"


def test_machine_that_is_not_known_has_no_program() -> None:
    assert program("riscv64") == b"" and program(platform.machine())


def verdict(code: bytes, arch: int, number: int) -> int:
    """What the kernel would make of the program: an interpreter of the four instructions in it."""
    steps = list(struct.iter_unpack("=HBBI", code))
    loaded, at = 0, 0
    while True:
        operation, yes, no, value = steps[at]
        at += 1
        if operation == 0x20:
            loaded = {0: number, 4: arch}[value]
        elif operation == 0x15:
            at += yes if loaded == value else no
        elif operation == 0x35:
            at += yes if loaded >= value else no
        else:
            return value
