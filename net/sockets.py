"""Sockets bound to addresses that may come later."""

from __future__ import annotations

import socket

_IP_FREEBIND, _IPV6_FREEBIND = 15, 78


def bound(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """Bound whether the address is there yet or not, in its family only, non-blocking. Raises OSError,
    ValueError. Datagrams have no SO_REUSEADDR: a second server would share them unseen."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock
