"""A steady stream of echo requests (RFC 792) out of a namespace, each of whose answers counts."""

from __future__ import annotations

import signal

from tests.support.forkserver import Dialogue

PROGRAM = """
import select, signal, socket, struct, sys, time
target, pause = sys.argv[1], float(sys.argv[2])
link = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
def packet(number):
    body = struct.pack("!BBHHH", 8, 0, 0, 0x5A5A, number)
    total = sum(struct.unpack("!4H", body)); total = (total & 0xFFFF) + (total >> 16)
    return body[:2] + struct.pack("!H", 0xFFFF ^ ((total & 0xFFFF) + (total >> 16))) + body[4:]
sent, answered, due, last = 0, set(), time.monotonic(), None
print("up", flush=True)
while last is None or time.monotonic() < last:
    now = time.monotonic()
    if ended and last is None: last = now + 1.0
    if last is None and now >= due and sent < 60000:
        try: link.sendto(packet(sent), (target, 0))
        except OSError: pass
        sent, due = sent + 1, due + pause
    if select.select([link], [], [], 0.02 if last else max(0.0, due - now))[0]:
        data = link.recv(2048)[20:]
        if data[0] == 0 and data[4:6] == b"\\x5a\\x5a": answered.add(struct.unpack("!H", data[6:8])[0])
print(sent, len(answered), sorted(set(range(sent)) - answered)[:200])
"""


class Pinging:
    """Begun when it is made; every 5 ms, if nothing else is said."""

    def __init__(self, namespace: str, target: str, *, pause: float = 0.005) -> None:
        self._program = Dialogue(namespace, PROGRAM, target, str(pause))
        assert self._program.line() == "up"

    def end(self) -> tuple[int, int]:
        """How many were sent, and how many never answered."""
        self._program.signal(signal.SIGTERM)
        said = self._program.line().split()
        self._program.end()
        return int(said[0]), int(said[0]) - int(said[1])
