"""A client that runs in a container's network: `loads.py ADDRESS STOP [SOURCE]` asks port 80 of ADDRESS (from
its own address SOURCE) until the file STOP is there, prints `up` once the idle connections stand, and at the
end what became of all as JSON.

quick: one short request after the other. slow: requests of a second each. idle: connections that say nothing
until the end, when those that still stand are asked.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time

SLOW, IDLE = 2, 6
REQUEST = b"GET / HTTP/1.0\r\n\r\n"


class Load:
    def __init__(self, address: str, stop: str, source: str = "") -> None:
        self.address, self.stop = address, stop
        self.source = (source, 0) if source else None
        self.done = {"quick": 0, "slow": 0, "idle": 0}
        self.failed: list[str] = []
        self.closed: list[float] = []
        """When idle connections were ended by the other side, unix seconds."""
        self.standing = threading.Semaphore(0)
        """Released once by each idle connection, also if it came to nothing."""

    def over(self) -> bool:
        return os.path.exists(self.stop)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.address, 80), timeout=5, source_address=self.source)

    def finish(self, kind: str, connection: socket.socket, request: bytes) -> None:
        connection.sendall(request)
        said = b""
        while chunk := connection.recv(65536):
            said += chunk
        if b"200 OK" in said:
            self.done[kind] += 1
        else:
            self.failed.append(f"{kind}: answer {said[:40]!r}")

    def ask(self, kind: str, pause: float) -> None:
        while not self.over():
            try:
                with self.connect() as connection:
                    connection.sendall(REQUEST[:5])
                    time.sleep(pause)
                    self.finish(kind, connection, REQUEST[5:])
            except OSError as error:
                self.failed.append(f"{kind}: {type(error).__name__}: {error}")

    def idle(self) -> None:
        try:
            with self.connect() as connection:
                self.standing.release()
                while not self.over():
                    if select.select([connection], [], [], 0.05)[0]:
                        self.closed.append(time.time())
                        return
                self.finish("idle", connection, REQUEST)
        except OSError as error:
            self.failed.append(f"idle: {type(error).__name__}: {error}")
            self.standing.release()


def main() -> None:
    load = Load(*sys.argv[1:])
    threads = [threading.Thread(target=load.idle) for _ in range(IDLE)]
    threads += [threading.Thread(target=load.ask, args=("slow", 1.0)) for _ in range(SLOW)]
    threads.append(threading.Thread(target=load.ask, args=("quick", 0.0)))
    for thread in threads:
        thread.start()
    for _ in range(IDLE):
        load.standing.acquire()
    print("up", flush=True)
    for thread in threads:
        thread.join()
    print(json.dumps({"done": load.done, "failed": load.failed, "closed": load.closed}), flush=True)


if __name__ == "__main__":
    main()
