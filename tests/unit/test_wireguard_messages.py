"""WireGuard's two languages: the userspace's text, and generic netlink, which pyroute2 reads as an oracle."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from pyroute2.netlink.generic.wireguard import wgmsg

from model.errors import CommandFailed
from net.state import TunnelPeer, WireGuard
from net.wireguard import genl, uapi

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))


def peer(key: bytes = KEY, **more: Any) -> TunnelPeer:
    words = {"allowed": ("10.1.2.0/24", "fd00:1::200/120"), "endpoint": "198.18.0.12:51830", **more}
    return TunnelPeer(link="flw", key=base64.b64encode(key).decode(), **words)


def decoded(body: bytes) -> Any:
    """As pyroute2 reads a message of the kernel's family."""
    message = wgmsg(struct.pack("=IHHII", 16 + len(body), 40, 0, 1, 0) + body)
    message.decode()
    return message


def test_netlink_message_of_peers_is_what_another_reader_reads() -> None:
    six = peer(OTHER, endpoint="[2001:db8::9]:40000", keepalive=25, allowed=("10.1.9.0/24",))
    (body,) = genl.put("flw0", [(KEY, peer()), (OTHER, six)])
    found = decoded(body)
    assert found["cmd"] == 1 and found.get_attr("WGDEVICE_A_IFNAME") == "flw0"
    one, two = found.get_attr("WGDEVICE_A_PEERS")
    assert base64.b64decode(one.get_attr("WGPEER_A_PUBLIC_KEY")) == KEY
    assert one.get_attr("WGPEER_A_FLAGS") == 2
    assert one.get_attr("WGPEER_A_ENDPOINT")["addr"] == "198.18.0.12"
    assert one.get_attr("WGPEER_A_ENDPOINT")["port"] == 51830
    assert one.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") == 0
    ranges = one.get_attr("WGPEER_A_ALLOWEDIPS")
    assert [r["addr"] for r in ranges] == ["10.1.2.0/24", "fd00:1::200/120"]
    assert two.get_attr("WGPEER_A_ENDPOINT")["addr"] == "2001:db8::9"
    assert two.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") == 25


def test_netlink_message_of_ones_own_end_is_what_another_reader_reads() -> None:
    found = decoded(genl.own("flw0", KEY, 51820))
    assert base64.b64decode(found.get_attr("WGDEVICE_A_PRIVATE_KEY")) == KEY
    assert found.get_attr("WGDEVICE_A_LISTEN_PORT") == 51820
    (gone,) = genl.drop("flw0", [KEY])
    (only,) = decoded(gone).get_attr("WGDEVICE_A_PEERS")
    assert only.get_attr("WGPEER_A_FLAGS") == 1


def test_many_peers_go_in_several_messages_that_fit() -> None:
    peers = [(bytes([i % 256, i // 256]) + KEY[2:], peer()) for i in range(1000)]
    bodies = genl.put("flw0", peers)
    assert len(bodies) > 1 and all(len(body) < 1 << 16 for body in bodies)
    assert sum(len(decoded(body).get_attr("WGDEVICE_A_PEERS")) for body in bodies) == 1000


def test_netlink_dump_is_read_back_though_a_peer_is_split_over_messages() -> None:
    first, second = peer(allowed=("10.1.2.0/24",)), peer(allowed=("10.1.9.0/24",), endpoint="")
    head = genl._attr(genl.PUBLIC_KEY, OTHER) + genl._attr(genl.LISTEN_PORT, struct.pack("=H", 51820))
    bodies = [body + head for p in (first, second) for body in genl.put("flw", [(KEY, p)])]
    found = genl.device("flw", bodies)
    assert found.end == WireGuard(key=base64.b64encode(OTHER).decode(), port=51820)
    (only,) = found.peers
    assert only.allowed == ("10.1.2.0/24", "10.1.9.0/24") and only.endpoint == "198.18.0.12:51830"


@pytest.mark.parametrize("seconds", [0, 1])
def test_netlink_dump_says_whom_the_device_has_met(seconds: int) -> None:
    when = genl._attr(genl.LAST_HANDSHAKE, struct.pack("=qq", seconds, 0))
    one = genl._attr(genl.NESTED, genl._attr(genl.PEER_KEY, KEY) + when)
    found = genl.device("flw", [bytes(4) + genl._attr(genl.PEERS, one)])
    assert found.strangers == (set() if seconds else {found.peers[0].key})


def test_text_request_names_each_peer_and_what_becomes_of_it() -> None:
    assert uapi.own(KEY, 51820).decode() == f"set=1\nprivate_key={KEY.hex()}\nlisten_port=51820\n\n"
    lines = uapi.put([(KEY, peer()), (OTHER, peer(OTHER, endpoint=""))]).decode().splitlines()
    assert lines[:7] == [
        "set=1",
        f"public_key={KEY.hex()}",
        "persistent_keepalive_interval=0",
        "endpoint=198.18.0.12:51830",
        "replace_allowed_ips=true",
        "allowed_ip=10.1.2.0/24",
        "allowed_ip=fd00:1::200/120",
    ]
    assert lines[7] == f"public_key={OTHER.hex()}" and "endpoint" not in " ".join(lines[8:])
    assert b"remove=true" in uapi.drop([KEY])


@pytest.mark.parametrize(
    "bad", ["192.0.2.1:1\nreplace_peers=true", "a=b", "192.0.2.1:1 ", "::1%eth0", "x" * 99]
)
def test_text_request_has_no_line_that_a_value_made(bad: str) -> None:
    for found in (peer(endpoint=bad), peer(allowed=("10.1.2.0/24", bad))):
        with pytest.raises(CommandFailed, match="is no address of a WireGuard peer"):
            uapi.put([(KEY, found)])


def test_text_answer_is_read_whole() -> None:
    text = (
        f"private_key={KEY.hex()}\nlisten_port=51820\nfwmark=0\n"
        f"public_key={OTHER.hex()}\npreshared_key={'0' * 64}\nprotocol_version=1\nendpoint=[fd00::9]:7\n"
        "last_handshake_time_sec=1\ntx_bytes=5\nrx_bytes=6\npersistent_keepalive_interval=25\n"
        "allowed_ip=fd00::/64\nallowed_ip=10.0.0.0/8\nerrno=0\n\n"
    )
    found = uapi.parse("flw", text.encode())
    assert (found.private_key, found.port) == (KEY.hex(), 51820)
    ((key, only),) = found.peers
    assert key == OTHER.hex() and only.allowed == ("10.0.0.0/8", "fd00::/64")
    assert (only.endpoint, only.keepalive) == ("[fd00::9]:7", 25)
    assert not found.strangers
    assert uapi.parse("flw", text.replace("time_sec=1", "time_sec=0").encode()).strangers == {OTHER.hex()}


@pytest.mark.parametrize(
    "answer", [b"", b"listen_port=1\n", b"listen_port=x\nerrno=0\n\n", b"errno=-5\n\n", b"\xff\n\n"]
)
def test_text_answer_that_is_none_is_refused(answer: bytes) -> None:
    with pytest.raises(CommandFailed):
        uapi.parse("flw", answer)
    if not answer.endswith(b"errno=0\n\n"):
        with pytest.raises(CommandFailed):
            uapi.check(answer, "peers of flw")
