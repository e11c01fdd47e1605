"""Asks a server for names as fast as it answers: `SERVER NAME SECONDS [FOREIGN]`; prints how many came back.

So many questions are always under way. Of ten, FOREIGN are for names that nobody has asked for before. Run
inside a container's network, without its image; the standard library alone.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time
from itertools import count

WINDOW = 32
PATIENCE = 0.5
"""Seconds without any answer, after which all that are under way are lost."""


def question(number: int, name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def main(server: str, name: str, seconds: float, foreign: int) -> int:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.connect((server, 53))
    sock.settimeout(PATIENCE)
    own, run, numbers = question(0, name)[2:], random.randrange(1 << 40), count()

    def send() -> None:
        number = next(numbers)
        if number % 10 < foreign:
            sock.send(question(number & 0xFFFF, f"x{run}-{number}.example.com"))
        else:
            sock.send(struct.pack("!H", number & 0xFFFF) + own)

    answered, end = 0, time.perf_counter() + seconds
    for _ in range(WINDOW):
        send()
    while time.perf_counter() < end:
        try:
            reply = sock.recv(4096)
        except TimeoutError:
            for _ in range(WINDOW):
                send()
            continue
        if reply[3] & 0xF or not reply[6] | reply[7]:
            raise SystemExit(f"{server} answered with code {reply[3] & 0xF} and no address")
        answered += 1
        send()
    return answered


if __name__ == "__main__":
    words = sys.argv[1:]
    print(main(words[0], words[1], float(words[2]), int(words[3]) if len(words) > 3 else 0))
