"""Asks one address for an echo each millisecond, in its own namespace; told line by line.

`aim ADDRESS` begins, and says so; `since STAMP` (unix seconds) waits for an answer to an echo that was sent
at the stamp or later, prints the seconds from the stamp to that answer, and ends. Echoes are answered by the
container's kernel, so that its program's own start does not count.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time

from net.kernel.echo import REPLY, REPLY6, REQUEST, REQUEST6, checksum

PAUSE = 0.001
PATIENCE = 5.0
"""Seconds after which there is none."""


class Prober:
    def __init__(self, target: str) -> None:
        self._six = ":" in target
        family = socket.AF_INET6 if self._six else socket.AF_INET
        protocol = socket.IPPROTO_ICMPV6 if self._six else socket.IPPROTO_ICMP
        self._link = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        self._target, self._identifier = target, int.from_bytes(os.urandom(2), "big")
        self._sent: list[float] = []
        self._answers: list[tuple[float, float]] = []
        """(sent, answered)."""

    def turn(self) -> None:
        """An echo, and what was answered meanwhile."""
        self._sent.append(time.time())
        try:
            self._link.sendto(self._packet(len(self._sent) - 1), (self._target, 0))
        except OSError:
            pass
        end = time.monotonic() + PAUSE
        while (left := end - time.monotonic()) > 0:
            if select.select([self._link], [], [], left)[0]:
                self._read()

    def first(self, stamp: float) -> float | None:
        """The answer's time, of the first that was asked at the stamp or later."""
        return next((answered for sent, answered in self._answers if sent >= stamp), None)

    def close(self) -> None:
        self._link.close()

    def _packet(self, number: int) -> bytes:
        kind = REQUEST6 if self._six else REQUEST
        rest = struct.pack("!I", number)
        head = struct.pack("!BBHHH", kind, 0, 0, self._identifier, number & 0xFFFF)
        total = 0 if self._six else checksum(head + rest)
        return head[:2] + struct.pack("!H", total) + head[4:] + rest

    def _read(self) -> None:
        data = self._link.recv(1 << 12)
        now = time.time()
        body = data if self._six else data[(data[0] & 0x0F) * 4 :]
        if len(body) < 12 or body[0] != (REPLY6 if self._six else REPLY):
            return
        identifier, _, number = struct.unpack_from("!HHI", body, 4)
        if identifier == self._identifier and number < len(self._sent):
            self._answers.append((self._sent[number], now))


def aim(target: str) -> float:
    """Until told since when it counts; -1 for no answer."""
    prober = Prober(target)
    print("aimed", flush=True)
    try:
        while not select.select([sys.stdin], [], [], 0)[0]:
            prober.turn()
        stamp = float(sys.stdin.readline().split()[1])
        while (answered := prober.first(stamp)) is None:
            if time.time() > stamp + PATIENCE:
                return -1.0
            prober.turn()
        return answered - stamp
    finally:
        prober.close()


def main() -> None:
    print("ready", flush=True)
    while line := sys.stdin.readline():
        print(aim(line.split()[1]), flush=True)


if __name__ == "__main__":
    main()
