"""The text by which userspace WireGuard is configured (wireguard.com/xplatform), packed and parsed. Pure.

Invariant: a value never becomes a line of its own, for it may be another host's word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from model.errors import CommandFailed
from model.spec import Struct
from net.state import TunnelPeer

GET = b"get=1\n\n"
_VALUE = re.compile(r"[0-9A-Fa-f.:/\[\]]{1,64}\Z")
"""An address with port, or a range."""


class Answer(Struct):
    """Of `get`; keys in hexadecimal."""

    private_key: str = ""
    port: int = 0
    peers: tuple[tuple[str, TunnelPeer], ...] = ()
    """Public key, and the rest."""
    strangers: frozenset[str] = frozenset()
    """Public keys, as in `Device.strangers`."""


def own(private_key: bytes, port: int) -> bytes:
    return _set((f"private_key={private_key.hex()}", f"listen_port={port}"))


def put(peers: Iterable[tuple[bytes, TunnelPeer]]) -> bytes:
    """Each with its public key. Raises CommandFailed for values that are none."""
    lines: list[str] = []
    for key, peer in peers:
        lines += [f"public_key={key.hex()}", f"persistent_keepalive_interval={peer.keepalive}"]
        lines += [f"endpoint={_value(peer.endpoint)}"] if peer.endpoint else []
        lines += ["replace_allowed_ips=true", *(f"allowed_ip={_value(cidr)}" for cidr in peer.allowed)]
    return _set(lines)


def drop(keys: Iterable[bytes]) -> bytes:
    return _set([line for key in keys for line in (f"public_key={key.hex()}", "remove=true")])


def _set(lines: Sequence[str]) -> bytes:
    return ("\n".join(("set=1", *lines)) + "\n\n").encode()


def _value(text: str) -> str:
    if not _VALUE.match(text):
        raise CommandFailed(f"{text[:60]!r} is no address of a WireGuard peer")
    return text


def check(answer: bytes, what: str) -> None:
    """Raises CommandFailed when it says that something was refused."""
    _, errno = _lines(answer)
    if errno:
        raise CommandFailed(f"{what}: WireGuard refused it (errno {errno})")


def parse(link: str, answer: bytes) -> Answer:
    """What a device of that name says of itself. Raises CommandFailed for what is no answer."""
    lines, errno = _lines(answer)
    if errno:
        raise CommandFailed(f"{link} does not tell its configuration (errno {errno})")
    private, port, peers = "", 0, list[tuple[str, dict[str, str], list[str]]]()
    for key, value in lines:
        match key:
            case "private_key":
                private = value
            case "listen_port" if not peers:
                port = _number(value)
            case "public_key":
                peers.append((value, {}, []))
            case "allowed_ip" if peers:
                peers[-1][2].append(value)
            case _ if peers:
                peers[-1][1][key] = value
    strangers = frozenset(key for key, found, _ in peers if not _met(found))
    seen = tuple(_peer(link, *peer) for peer in peers)
    return Answer(private_key=private, port=port, peers=seen, strangers=strangers)


def _peer(link: str, key: str, found: dict[str, str], allowed: list[str]) -> tuple[str, TunnelPeer]:
    keepalive = _number(found.get("persistent_keepalive_interval", "0"))
    endpoint = found.get("endpoint", "")
    peer = TunnelPeer(
        link=link, key="", allowed=tuple(sorted(allowed)), endpoint=endpoint, keepalive=keepalive
    )
    return key, peer


def _met(found: dict[str, str]) -> bool:
    return any(_number(found.get(f"last_handshake_time_{unit}", "0")) for unit in ("sec", "nsec"))


def _lines(answer: bytes) -> tuple[list[tuple[str, str]], int]:
    lines = [line.partition("=")[::2] for line in answer.decode(errors="replace").splitlines() if line]
    if not lines or lines[-1][0] != "errno":
        raise CommandFailed("WireGuard's answer is cut off")
    return lines[:-1], _number(lines[-1][1])


def _number(text: str) -> int:
    if not text.lstrip("-").isdigit():
        raise CommandFailed(f"WireGuard's answer has {text[:20]!r} for a number")
    return int(text)
