"""What is on a link between hosts: every frame as it is there, both ways (packet(7))."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
from collections.abc import Iterator

from net.kernel import netns

ETH_P_ALL = 3
MOST = 200_000


class Seen:
    """Frames of Ethernet, from its header on, while the context lasts."""

    def __init__(self, link: socket.socket) -> None:
        self.frames: list[bytes] = []
        self._link = link
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while len(self.frames) < MOST:
                try:
                    self.frames.append(self._link.recv(65535))
                except TimeoutError:
                    if self._link.fileno() < 0:
                        return

    def close(self) -> None:
        self._link.close()
        self._reader.join(5)

    def packets_with(self, payload: bytes) -> list[bytes]:
        return [frame for frame in self.frames if payload in frame]

    def holds(self, payload: bytes) -> bool:
        return bool(self.packets_with(payload))

    def count(self, *, udp_port: int = 0, vxlan: bool = False, inner: str = "") -> int:
        """Frames of UDP with that port at either end, of VXLAN, or that name an address anywhere."""
        port = 4789 if vxlan else udp_port
        found = [f for f in self.frames if not port or port in _udp_ports(f)]
        return len([f for f in found if not inner or ipaddress.ip_address(inner).packed in f])

    @staticmethod
    def vni(frame: bytes) -> int:
        """Of a frame of VXLAN over IPv4 (RFC 7348, section 5); 0 for any other."""
        return int.from_bytes(frame[46:49], "big") if 4789 in _udp_ports(frame) else 0


def _udp_ports(frame: bytes) -> tuple[int, ...]:
    """Of UDP over IPv4 or IPv6 without options."""
    kind = struct.unpack_from("!H", frame, 12)[0] if len(frame) >= 42 else 0
    if kind == 0x0800 and frame[23] == 17:
        return struct.unpack_from("!HH", frame, 34)
    if kind == 0x86DD and len(frame) >= 62 and frame[20] == 17:
        return struct.unpack_from("!HH", frame, 54)
    return ()


@contextlib.contextmanager
def sniffing(namespace: str, link: str) -> Iterator[Seen]:
    """On a link of a network namespace that has a name."""

    def opened() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(ETH_P_ALL))
        made.bind((link, ETH_P_ALL))
        made.settimeout(0.2)
        return made

    seen = Seen(netns.inside(f"/run/netns/{namespace}", opened))
    try:
        yield seen
    finally:
        seen.close()
