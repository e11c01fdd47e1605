"""A byte there and a byte back: `serve`, or the server's address to ask for `SECONDS` and print how often a
second. Each end has a processor of its own, as on two hosts: where a scheduler puts them is not measured.
"""

from __future__ import annotations

import os
import socket
import sys
import time

PORT = 5299
SECONDS, WARM = 0.7, 200
"""Measured, after so many exchanges that aren't counted."""


def main(word: str) -> None:
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[-1 if word == "serve" else 0]})
    if word == "serve":
        with socket.create_server(("0.0.0.0", PORT)) as listening:
            while True:
                _answer(listening.accept()[0])
    try:
        with socket.create_connection((word, PORT), timeout=5) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            print(_rate(connection))
    except ConnectionRefusedError:
        sys.exit(1)


def _answer(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while data := connection.recv(1):
            connection.send(data)


def _rate(connection: socket.socket) -> float:
    for _ in range(WARM):
        _exchange(connection)
    began, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - began) < SECONDS:
        _exchange(connection)
        count += 1
    return count / taken


def _exchange(connection: socket.socket) -> None:
    connection.send(b"?")
    connection.recv(1)


if __name__ == "__main__":
    main(sys.argv[1])
