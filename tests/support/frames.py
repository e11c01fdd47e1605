"""Frames taken off a link, and what scapy reads in them: another's eyes on our packets.

`Capture` takes them with a packet socket in a namespace; `decoded` runs scapy in a process of its own, for it
changes much of a Python that imports it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

TAKE = """
import signal, socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
link.bind((sys.argv[1], 0))
signal.signal(signal.SIGTERM, lambda *_: link.setblocking(False))
print("up", flush=True)
try:
    while True: print(link.recv(1 << 17).hex())
except BlockingIOError:
    sys.stdout.flush()  # all that was there is taken
"""
DECODE = """
import json, sys
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

def network(layer):
    for kind in (IP, IPv6):
        if layer.haslayer(kind): return layer[kind]
    return None

def ports(packet):
    return [getattr(packet.payload, name, None) for name in ("sport", "dport")]

for line in sys.stdin:
    frame = Ether(bytes.fromhex(line))
    outer = network(frame)
    if outer is None or not isinstance(outer.payload, UDP): continue
    udp = outer.payload
    told = {"source": outer.src, "target": outer.dst, "version": outer.version, "ports": ports(outer),
            "checksum": udp.chksum, "vxlan": isinstance(udp.payload, VXLAN)}
    if told["vxlan"]:
        head, inner = udp.payload, udp.payload.payload
        told |= {"flags": int(head.flags), "vni": head.vni, "reserved": [head.reserved1, head.reserved2],
                 "ethernet": isinstance(inner, Ether), "macs": [inner.src, inner.dst]}
        packet = network(inner)
        if packet is not None:
            told["inner"] = {"source": packet.src, "target": packet.dst, "version": packet.version,
                             "protocol": packet.payload.name, "ports": ports(packet)}
    print(json.dumps(told))
"""


class Capture:
    """Of all frames that pass a link, both ways, until `frames` is asked for."""

    def __init__(self, namespace: str, link: str) -> None:
        argv = ["nsenter", f"--net={namespace}", sys.executable, "-u", "-c", TAKE, link]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n"

    def frames(self) -> list[str]:
        """In hex, each once."""
        self._process.terminate()
        said, _ = self._process.communicate(timeout=10)
        return said.split()


def decoded(frames: list[str]) -> list[dict[str, Any]]:
    """What scapy says of those that are UDP."""
    words = [sys.executable, "-c", DECODE]
    done = subprocess.run(words, input="\n".join(frames), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
