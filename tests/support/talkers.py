"""Programs that talk inside namespaces: a server that says who it is, clients that print what they heard."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support import forkserver
from tests.support.forkserver import Dialogue

PORT = 80
SERVER = """
import selectors, socket, sys
name, port = sys.argv[1].encode(), int(sys.argv[2])
chosen = selectors.DefaultSelector()
for family, any_ in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((any_, port))
        if kind == socket.SOCK_STREAM: s.listen(256)
        chosen.register(s, selectors.EVENT_READ, "listen" if kind == socket.SOCK_STREAM else "datagram")
print("up", flush=True)
while True:
    for key, _ in chosen.select():
        s = key.fileobj
        if key.data == "listen":
            c, address = s.accept()
            c.sendall(name + b" " + address[0].encode() + b"\\n")
            chosen.register(c, selectors.EVENT_READ, "connection")
        elif key.data == "datagram":
            data, address = s.recvfrom(99)
            s.sendto(name + b" " + address[0].encode() + b"\\n", address)
        else:
            try: data = s.recv(99)
            except OSError: data = b""
            if data: s.sendall(data)
            else: chosen.unregister(s); s.close()
"""
CLIENT = """
import socket, sys, time
kind, count, *targets = sys.argv[1:]
for _ in range(int(count)):
    for target in targets:
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        began = time.monotonic()
        try:
            with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as s:
                s.settimeout(3)
                s.connect((target, PORT))
                if kind == "udp": s.send(b"?")
                print(s.recv(99).decode().strip(), flush=True)
        except OSError as error:
            print(type(error).__name__, "%.3f" % (time.monotonic() - began), flush=True)
""".replace("PORT", str(PORT))
REACH = """
import socket, sys, threading
def ask(target):
    try:
        with socket.create_connection((target, PORT), 3) as s:
            if s.recv(99): print(target + "\\n", end="", flush=True)
    except OSError: pass
asking = [threading.Thread(target=ask, args=(target,)) for target in sys.argv[1:]]
for one in asking: one.start()
for one in asking: one.join()
""".replace("PORT", str(PORT))
PROMPT = """
import socket, sys
kind, target = sys.argv[1:]
s = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET,
                  socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.settimeout(3 if kind == "tcp" else 0.5)
s.connect((target, PORT))
print(s.recv(99).decode().strip() if kind == "tcp" else "up", flush=True)
for line in sys.stdin:
    try:
        s.send(line.encode())
        print(s.recv(99).decode().strip(), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
""".replace("PORT", str(PORT))


class Talker:
    """A program in a namespace; each line said is answered with one."""

    def __init__(self, namespace: str, code: str, *words: str) -> None:
        self._program = Dialogue(namespace, code, *words)
        self.greeting = self._program.line()

    def say(self, words: str) -> str:
        self._program.write(words)
        return self.line()

    def line(self) -> str:
        """What it says next."""
        return self._program.line()

    def close(self) -> None:
        self._program.kill()


def server(namespace: str, name: str) -> Talker:
    """Greets each TCP connection and answers each datagram with `NAME CLIENT`; echoes on connections."""
    return Talker(namespace, SERVER, name, str(PORT))


def dialogue(namespace: str, kind: str, target: str) -> Talker:
    """One connection or one socket, kept. A datagram's answer is waited for shortly: one that is on its way
    while its connection is forgotten is lost, as datagrams may be."""
    return Talker(namespace, PROMPT, kind, target)


def answers(namespace: str, kind: str, targets: Sequence[str], count: int = 1) -> list[list[str]]:
    """Words of each answer of `count` rounds, a connection each; an error is its name and its seconds."""
    found = forkserver.run(namespace, CLIENT, kind, str(count), *targets, timeout=60)
    return [line.split() for line in found.stdout.splitlines()]


def unreached(namespace: str, targets: Sequence[str]) -> list[str]:
    """Of these, asked all at once by TCP, those of which there is no answer in three seconds."""
    found = forkserver.run(namespace, REACH, *targets, timeout=60).stdout.split()
    return [target for target in targets if target not in found]
