"""What is kept of foreign answers and for how long; the host's own name servers."""

from __future__ import annotations

import os
from pathlib import Path

import dns.message
import pytest

from net.resolver import codec
from net.resolver.cache import Cache, lifetime
from net.resolver.exchange import matches, sockaddr
from net.resolver.hostconf import HostServers, parse
from net.resolver.state import ResolverState, Zone, decode, encode

SOA = "example.com. 900 IN SOA ns.example.com. me.example.com. 1 2 3 4"


def reply(answer: str = "", authority: str = "", *, rcode: str = "NOERROR", flags: str = "QR RD RA") -> bytes:
    return dns.message.from_text(
        f"id 1\nopcode QUERY\nrcode {rcode}\nflags {flags}\n;QUESTION\nexample.com. IN A\n"
        + (f";ANSWER\n{answer}\n" if answer else "")
        + (f";AUTHORITY\n{authority}\n" if authority else "")
    ).to_wire()


TWO = "example.com. 300 IN CNAME a.example.com.\na.example.com. 60 IN A 192.0.2.1"


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (reply(TWO), 60),
        (reply("example.com. 90000 IN A 192.0.2.1"), 3600),
        (reply("example.com. 0 IN A 192.0.2.1"), 0),
        (reply(authority=f"{SOA} 30", rcode="NXDOMAIN"), 30),
        (reply(authority=f"{SOA} 3000"), 900),
        (reply(rcode="NXDOMAIN"), 0),
        (reply(TWO, flags="QR TC RD RA"), 0),
        (reply(TWO, rcode="SERVFAIL"), 0),
    ],
)
def test_answer_lives_as_long_as_its_least_ttl(data: bytes, seconds: int) -> None:
    assert lifetime(data, codec.walk(data)) == seconds


def test_ttl_with_its_highest_bit_is_no_time() -> None:
    data = bytearray(reply("example.com. 300 IN A 192.0.2.1"))
    at = codec.walk(bytes(data)).records[0].ttl_at
    data[at] = 0x80
    assert lifetime(bytes(data), codec.walk(bytes(data))) == 0


def test_kept_answer_ages_and_ends() -> None:
    cache, data = Cache(), reply(TWO)
    cache.put("k", data, codec.walk(data), 100.0)
    kept = cache.get("k", 112.9)
    assert kept is not None
    assert [record.ttl for record in codec.walk(kept).records] == [288, 48]
    assert cache.get("k", 159.9) is not None and cache.get("k", 160.0) is None and len(cache) == 0


def test_cache_is_bounded_in_entries_and_bytes_and_keeps_what_is_used() -> None:
    data = reply(TWO)
    seen = codec.walk(data)
    cache = Cache(entries=3, size=10_000)
    for key in "abc":
        cache.put(key, data, seen, 0.0)
    cache.get("a", 1.0)
    cache.put("d", data, seen, 1.0)
    assert [key for key in "abcd" if cache.get(key, 1.0)] == ["a", "c", "d"]
    small = Cache(entries=100, size=2 * len(data))
    for key in "abc":
        small.put(key, data, seen, 0.0)
    assert len(small) == 2
    small.put("c", data, seen, 0.0)
    assert len(small) == 2


def test_hosts_name_servers_are_the_first_three_or_this_machine() -> None:
    text = "# x\nnameserver 192.0.2.1 # a\n; y\nnameserver fe80::1%eth0\nnameserver\nsearch a b\n"
    assert parse(text) == ("192.0.2.1", "fe80::1%eth0")
    assert parse("nameserver 1.1.1.1\n" * 9) == ("1.1.1.1",) * 3
    assert parse("") == ("127.0.0.1",)


def test_hosts_name_servers_are_read_anew_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    host = HostServers(str(path))
    assert host.servers() == ("127.0.0.1",)
    path.write_text("nameserver 192.0.2.1\n")
    assert host.servers() == ("192.0.2.1",)
    aside = tmp_path / "new"
    aside.write_text("nameserver 192.0.2.2\n")
    os.replace(aside, path)
    assert host.servers() == ("192.0.2.2",)
    path.unlink()
    assert host.servers() == ("192.0.2.2",)


def test_answer_counts_only_with_its_id_and_question() -> None:
    query = dns.message.make_query("Example.com", "A").to_wire()
    good = reply(TWO)
    assert matches(good, b"\0\1", query, len(query))
    assert not matches(good, b"\0\2", query, len(query))
    assert not matches(query, query[:2], query, len(query))
    assert not matches(good.replace(b"\7example", b"\7exbmple"), b"\0\1", query, len(query))
    assert not matches(good[:11], b"\0\1", query, len(query))


def test_addresses_of_name_servers_are_literal() -> None:
    assert sockaddr("192.0.2.1", 53)[1] == ("192.0.2.1", 53)
    assert sockaddr("fe80::1%1", 53)[1] == ("fe80::1", 53, 0, 1)
    for text in ("example.com", "", "1.2.3", "fe80::1%nosuchlink"):
        with pytest.raises((OSError, ValueError)):
            sockaddr(text, 53)


def test_state_of_a_newer_agent_is_understood() -> None:
    state = ResolverState(zones={"n": Zone(network="n", listen=("10.1.0.1",))})
    data = encode(state).replace(b'{"zones"', b'{"later":1,"zones"')
    assert decode(data) == state and state.listen == {"10.1.0.1"}
