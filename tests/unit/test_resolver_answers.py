"""What the resolver says to whom, judged by another library's reader."""

from __future__ import annotations

import dns.message
import dns.opcode
import dns.rdataclass
import pytest
from msgspec.structs import replace

from net.resolver import codec
from net.resolver.answer import Answerer, Forward, reverse_address
from net.resolver.state import Client, ResolverState, Zone
from tests.support.names import (
    BACK,
    FRONT,
    SHUT,
    Resolved,
    ask,
    asker,
    ident,
    plain,
    query,
    replica,
    resolved,
    state,
)

NEAR, BOTH, LOCKED, OWN = "10.1.0.1", "10.2.0.9", "10.3.0.1", "10.1.0.4"
LINKED = "10.2.0.10"
STATE = state(
    {
        BACK: {
            ident(1): replica(1, ipv6="fd00:1::1"),
            ident(2): replica(2),
            ident(3): replica(3, ready=False),
            ident(4): plain("Cache", "10.1.0.4", aliases="shared redis.local"),
        },
        FRONT: {ident(5): plain("proxy", "10.2.0.9", aliases="shared")},
        SHUT: {ident(6): plain("vault", "10.3.0.1")},
    },
    asker((BACK, NEAR)),
    asker((BACK, OWN), dns=("192.0.2.7", "192.0.2.8")),
    asker((FRONT, BOTH), (BACK, "10.1.0.9")),
    asker((SHUT, LOCKED)),
)


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "values"),
    [
        ("web", "A", "NOERROR", ["10.1.0.1", "10.1.0.2"]),
        ("WEB.Back", "A", "NOERROR", ["10.1.0.1", "10.1.0.2"]),
        ("web", "AAAA", "NOERROR", ["fd00:1::1"]),
        ("web", "ANY", "NOERROR", ["10.1.0.1", "10.1.0.2", "fd00:1::1"]),
        ("tasks.web", "A", "NOERROR", ["10.1.0.1", "10.1.0.2"]),
        ("tasks.web.back", "A", "NOERROR", ["10.1.0.1", "10.1.0.2"]),
        ("web.3", "A", "NOERROR", ["10.1.0.3"]),
        ("000000000004", "A", "NOERROR", ["10.1.0.4"]),
        ("cache", "A", "NOERROR", ["10.1.0.4"]),
        ("cache", "AAAA", "NOERROR", []),
        ("cache", "MX", "NOERROR", []),
        ("cache", "HTTPS", "NOERROR", []),
        ("redis.local.back", "A", "NOERROR", ["10.1.0.4"]),
        ("tasks.cache", "A", "NXDOMAIN", []),
        ("localhost", "A", "NOERROR", ["127.0.0.1"]),
        ("x.localhost", "AAAA", "NOERROR", ["::1"]),
        ("2.0.1.10.in-addr.arpa", "PTR", "NOERROR", ["web.2.xyz2.back."]),
        ("2.0.1.10.in-addr.arpa", "TXT", "NOERROR", []),
        ("200.0.1.10.in-addr.arpa", "PTR", "NXDOMAIN", []),
        ("_80._tcp.web", "SRV", "NOERROR", ["0 0 80 web.1.xyz1.back.", "0 0 80 web.2.xyz2.back."]),
        ("_tcp.web", "SRV", "NOERROR", ["0 0 0 web.1.xyz1.back.", "0 0 0 web.2.xyz2.back."]),
        ("_53._udp.Cache.back", "SRV", "NOERROR", ["0 0 53 cache.back."]),
        ("_80._tcp.web", "A", "NOERROR", []),
        ("_http._tcp.web", "SRV", "NXDOMAIN", []),
        ("_65536._tcp.web", "SRV", "NXDOMAIN", []),
        ("_80._icmp.web", "SRV", "NXDOMAIN", []),
    ],
)
def test_name_of_ours_is_answered(name: str, kind: str, rcode: str, values: list[str]) -> None:
    assert resolved(STATE, NEAR, name, kind) == (rcode, values)


def test_service_answer_brings_the_addresses_of_its_targets() -> None:
    found = ask(STATE, NEAR, "_80._tcp.web", "SRV")
    assert isinstance(found, Resolved)
    assert "web.1.xyz1.back. fd00:1::1" in found.extras and "web.2.xyz2.back. 10.1.0.2" in found.extras


@pytest.mark.parametrize(
    "name",
    [
        *("example.com", "nosuch", "x.web", "x.back", "*.web", "proxy", "proxy.front", "."),
        *("8.8.8.8.in-addr.arpa", "1.0.2.10.in-addr.arpa", "1.10.in-addr.arpa", "a.b.c.d.in-addr.arpa"),
        *("tasks.proxy", "_80._tcp.proxy", "a\\.b", "web\\.3", "xn--bcher-kva.example", "\\200"),
    ],
)
def test_name_that_is_not_ours_is_forwarded(name: str) -> None:
    assert ask(STATE, NEAR, name) == Forward(())


def test_own_name_servers_are_asked_instead_of_the_hosts() -> None:
    assert ask(STATE, OWN, "example.com") == Forward(("192.0.2.7", "192.0.2.8"))


def test_internal_network_asks_nobody_outside() -> None:
    assert resolved(STATE, LOCKED, "vault") == ("NOERROR", ["10.3.0.1"])
    for name in ("example.com", "web", "nosuch", "8.8.8.8.in-addr.arpa"):
        assert resolved(STATE, LOCKED, name) == ("NXDOMAIN", [])


def test_first_network_that_knows_a_name_answers_for_it() -> None:
    assert resolved(STATE, BOTH, "shared") == ("NOERROR", ["10.2.0.9"])
    assert resolved(STATE, BOTH, "shared.back") == ("NOERROR", ["10.1.0.4"])
    assert resolved(STATE, "10.1.0.9", "web")[1] == ["10.1.0.1", "10.1.0.2"]


def test_link_is_a_name_of_its_client_alone_and_comes_first() -> None:
    links = {"db": "web.back", "shared": "web.back", "later": "nobody.back", "web": "nobody.back"}
    plain_one = STATE.clients[BOTH]
    state = replace(STATE, clients={BOTH: plain_one, LINKED: replace(plain_one, links=links)})
    assert resolved(state, LINKED, "db") == resolved(state, BOTH, "web")
    assert resolved(state, LINKED, "shared") == resolved(state, BOTH, "web")
    assert resolved(state, LINKED, "web") == resolved(state, BOTH, "web"), "a link to nobody hides nothing"
    assert ask(state, LINKED, "later") == Forward(())
    assert ask(state, BOTH, "db") == Forward(())
    again = Answerer(replace(state, clients={LINKED: plain_one}), Answerer(state))
    assert ask(again, LINKED, "db") == Forward(()), "answers that were packed with the link are not those now"


def test_stranger_is_refused_whatever_it_asks() -> None:
    for name in ("web", "example.com"):
        assert resolved(STATE, "10.1.0.77", name) == ("REFUSED", [])


def test_addresses_are_rotated_by_turn_and_keep_their_number() -> None:
    answerer = Answerer(STATE)
    firsts = set()
    for turn in range(4):
        found = ask(answerer, NEAR, "web", turn=turn)
        assert isinstance(found, Resolved) and len(found.values) == 2
        firsts.add(str(next(iter(found.message.answer[0]))))
    assert firsts == {"10.1.0.1", "10.1.0.2"}


def test_upper_and_lower_case_of_the_question_come_back() -> None:
    found = ask(STATE, NEAR, "wEb")
    assert isinstance(found, Resolved) and found.message.question[0].name.to_text() == "wEb."


def many(count: int, network: str = "n") -> Answerer:
    found = tuple(f"10.1.{n // 250}.{n % 250}" for n in range(count))
    zone = Zone(network=network, names={"web": found, "a": found[:1]}, tasks={"web": ("a",) * count})
    return Answerer(ResolverState(zones={"n": zone}, clients={NEAR: Client(zones=("n",))}))


@pytest.mark.parametrize(("payload", "limit"), [(None, 512), (100, 512), (900, 900), (65535, 1232)])
@pytest.mark.parametrize(("name", "kind"), [("web", "A"), ("_1._tcp.web", "SRV")])
def test_long_answer_by_udp_is_cut_at_the_clients_size(
    payload: int | None, limit: int, name: str, kind: str
) -> None:
    answerer = many(400)
    for turn in (0, 1, 399):
        found = ask(answerer, NEAR, name, kind, payload=payload, turn=turn)
        assert isinstance(found, Resolved) and found.cut_off
        assert limit - 60 < len(found.data) <= limit and found.values
        assert (found.message.edns >= 0) is (payload is not None)


def test_long_answer_by_tcp_is_whole_and_bounded() -> None:
    found = ask(many(400), NEAR, "web", udp=False)
    assert isinstance(found, Resolved) and not found.cut_off and len(found.values) == 400
    for name, kind in (("web", "A"), ("_1._tcp.web", "SRV")):
        found = ask(many(5000), NEAR, name, kind, udp=False)
        assert isinstance(found, Resolved) and len(found.data) <= 0xFFFF and not found.cut_off


def test_unsupported_questions_are_told_so() -> None:
    answerer = Answerer(STATE)

    def rcode(words: dns.message.Message) -> str:
        data = answerer.answer(words.to_wire(), NEAR, 0, udp=True)
        assert isinstance(data, bytes)
        return Resolved(data).rcode

    assert rcode(query("web", edns=1)) == "BADVERS"
    assert rcode(query("web", "AXFR")) == "REFUSED"
    assert rcode(dns.message.make_query("version.bind", "TXT", dns.rdataclass.CH)) == "REFUSED"
    update = query("web")
    update.set_opcode(dns.opcode.NOTIFY)
    assert rcode(update) == "NOTIMP"


def test_responses_and_scraps_are_not_answered() -> None:
    answerer = Answerer(STATE)
    response = dns.message.make_response(query("web")).to_wire()
    for data in (response, b"", b"\0" * 11):
        assert answerer.answer(data, NEAR, 0, udp=True) is None


def question(name: bytes, *, counts: tuple[int, int, int, int] = (1, 0, 0, 0), rest: bytes = b"") -> bytes:
    numbers = b"".join(count.to_bytes(2, "big") for count in counts)
    return b"\x12\x34\x01\0" + numbers + name + b"\0\1\0\1" + rest


OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


@pytest.mark.parametrize(
    "data",
    [
        question(b"\3web\0", counts=(0, 0, 0, 0)),
        question(b"\3web\0", counts=(2, 0, 0, 0), rest=b"\xc0\x0c\0\1\0\1"),
        question(b"\3web\0", counts=(1, 1, 0, 0)),
        question(b"\xc0\x0c"),
        question(b"\1a\xc0\x0c"),
        question(b"\x40" + b"a" * 64 + b"\0"),
        question(b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 3 + b"\0"),
        question(b"\x05web"),
        question(b"\3web\0")[:-1],
        question(b"\3web\0", counts=(1, 0, 0, 1)),
        question(b"\3web\0", counts=(1, 0, 0, 1), rest=OPT[:-2] + b"\xff\xff"),
        question(b"\3web\0", counts=(1, 0, 0, 2), rest=OPT * 2),
        question(b"\3web\0", counts=(1, 0, 0, 1), rest=b"\xc0\x0c" + OPT[1:]),
        question(b"\3web\0", counts=(1, 0, 0, 65535), rest=OPT),
        question(b"\3web\0", rest=b"x" * 65000),
    ],
)
def test_malformed_question_is_told_so(data: bytes) -> None:
    found = Answerer(STATE).answer(data, NEAR, 0, udp=True)
    assert isinstance(found, bytes) and found[:2] == b"\x12\x34" and Resolved(found).rcode == "FORMERR"


def test_record_after_record_is_kept_packed_but_not_without_end() -> None:
    answerer = Answerer(STATE)
    for number in range(10_000):
        ask(answerer, LOCKED, f"n{number}")
    assert len(answerer._clients[LOCKED][1].packed) <= 4096


def test_reverse_names_are_read_exactly() -> None:
    assert str(reverse_address("4.3.2.1.in-addr.arpa")) == "1.2.3.4"
    assert str(reverse_address("1." + "0." * 29 + "d.f.ip6.arpa")) == "fd00::1"
    for name in ("04.3.2.1.in-addr.arpa", "256.3.2.1.in-addr.arpa", "x.in-addr.arpa", "1.ip6.arpa"):
        assert reverse_address(name) is None


def test_name_over_the_limit_is_no_answer_of_the_codec() -> None:
    assert codec.encode_name("a.bc") == b"\1a\2bc\0"
