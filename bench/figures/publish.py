"""What the PROXY protocol costs a published port: the same container's port with it and without, and HAProxy
doing the same in the same place, asked in turn by a client outside of the fleet."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from bench.figures.overlay import ATTEMPTS, container_pid
from bench.peers import IMAGE
from bench.stage import Stage
from bench.table import Figure, Samples
from deploy.rig.netns import address_of

PLAIN, TOLD, HAPROXY = 9080, 9081, 9082
SECONDS = "2"
CONFIG = """
global
  nbthread 1
defaults
  mode tcp
  timeout client 20s
  timeout server 20s
  timeout connect 5s
listen f
  bind :{port}
  server s {address}:80 send-proxy-v2
"""
SERVER = """
import contextlib, socket, threading
def serve(c):
    with c, contextlib.suppress(ConnectionError):
        buffer, count, last = bytearray(1 << 20), 0, b""
        while n := c.recv_into(buffer):
            count, last = count + n, buffer[n - 1:n]
            if n < 200 and last == b"?":
                c.sendall(b"!")
                return
        c.sendall(str(count).encode())
s = socket.create_server(("0.0.0.0", 80), backlog=4096)
print("up", flush=True)
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
"""
"""Answers a question; counts what ends without one. A header before either is just more bytes."""
CONNECT = """
import socket, struct, sys, time
target, end, count = (sys.argv[1], int(sys.argv[2])), time.perf_counter() + float(sys.argv[3]), 0
while time.perf_counter() < end:
    with socket.create_connection(target) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.sendall(b"?")
        assert s.recv(1) == b"!"
    count += 1
print(count / float(sys.argv[3]))
"""
STREAM = """
import socket, sys, time
seconds, data = float(sys.argv[3]), bytes(1 << 20)
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as s:
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    count = int(s.recv(100))
print(count * 8 / 1e9 / (time.perf_counter() - began))
"""


def connect(stage: Stage, runs: int) -> Samples:
    return _compare(stage, runs, CONNECT)


def stream(stage: Stage, runs: int) -> Samples:
    return _compare(stage, runs, STREAM)


def _compare(stage: Stage, runs: int, program: str) -> Samples:
    found: dict[int, list[float]] = {TOLD: [], PLAIN: [], HAPROXY: []}
    with _served(stage):
        for turn in range(-1, runs):
            for port in sorted(found, reverse=bool(turn % 2)):
                rate = _asked(stage, program, port)
                if turn >= 0:
                    found[port].append(rate)
    note = f"HAProxy in the same place {median(found[HAPROXY]):.3g}"
    return Samples(ours=tuple(found[TOLD]), peer=tuple(found[PLAIN]), note=note)


def _asked(stage: Stage, program: str, port: int) -> float:
    done = stage.fleet.rig.outside([sys.executable, "-c", program, address_of("n1"), str(port), SECONDS])
    if done.returncode:
        raise RuntimeError(f"port {port}: {done.stderr.decode()[-300:]}")
    return float(done.stdout)


def _await(stage: Stage, port: int) -> None:
    """Until somebody listens there."""
    code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])))"
    for _ in range(ATTEMPTS):
        if not stage.fleet.rig.outside([sys.executable, "-c", code, address_of("n1"), str(port)]).returncode:
            return
        time.sleep(0.05)
    raise RuntimeError(f"nobody listens on port {port}")


@contextmanager
def _served(stage: Stage) -> Iterator[None]:
    """A container on n1 with both ports, the server in its network namespace, HAProxy in its host's."""
    words = ("-p", f"{PLAIN}:80", "-p", f"published={TOLD},target=80,proxy-protocol=v2")
    stage.fleet.flota("n1", "run", "-d", "--name", "told", "--node", "n1", *words, IMAGE, "sleep", "100000")
    try:
        space = f"--net=/proc/{container_pid(stage, 'told', 'n1')}/ns/net"
        address = stage.fleet.json("inspect", "told")[0]["status"]["endpoints"][0]["ipv4"]
        config = stage.folder / "haproxy.cfg"
        config.write_text(CONFIG.format(port=HAPROXY, address=address))
        argv = ["nsenter", space, sys.executable, "-u", "-c", SERVER]
        host = f"--net=/run/netns/{stage.fleet.rig.name}-n1"
        beside = ["nsenter", host, "haproxy", "-db", "-q", "-f", str(config)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as server, subprocess.Popen(beside) as haproxy:
            assert server.stdout is not None
            server.stdout.readline()
            try:
                _await(stage, HAPROXY)
                yield
            finally:
                server.kill()
                haproxy.terminate()
    finally:
        stage.fleet.attempt("n1", "rm", "-f", "told")


PEER = "the same port without"
FIGURES = (
    (
        Figure(
            name="publish.proxy.connect",
            what="TCP connections, one after the other, by a port with `proxy-protocol`",
            unit="1/s",
            goal=0.4,
            better="more",
            peer=PEER,
        ),
        connect,
    ),
    (
        Figure(
            name="publish.proxy.stream",
            what="one TCP stream to a container by a port with `proxy-protocol`",
            unit="Gbit/s",
            goal=0.5,
            better="more",
            peer=PEER,
        ),
        stream,
    ),
)
