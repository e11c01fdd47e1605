"""A name server of the world outside: `ADDRESS`; every name leads to 192.0.2.1. Standard library only."""

from __future__ import annotations

import socket
import struct
import sys

ANSWER = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes((192, 0, 2, 1))


def main(address: str) -> None:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind((address, 53))
    print("up", flush=True)
    while True:
        data, client = sock.recvfrom(4096)
        end = data.index(b"\0", 12) + 5
        head = data[:2] + b"\x81\x80" + struct.pack("!HHHH", 1, 1, 0, 0)
        sock.sendto(head + data[12:end] + ANSWER, client)


if __name__ == "__main__":
    main(sys.argv[1])
