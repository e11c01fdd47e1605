"""The resolver on real sockets: its own names, foreign ones by servers of every temper, changing states."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest

from net.resolver import exchange, forward, listen
from net.resolver.state import Client, ResolverState, Zone
from tests.support.names import query
from tests.support.nameserver import Behaviour, ResolverLab, answer, name_server, resolver_lab
from tests.support.waiting import until

HERE, THERE, THIRD = "127.0.0.71", "127.0.0.72", "127.0.0.73"
FIRST, SECOND = "127.0.0.81", "127.0.0.82"
OWN = "127.0.0.61"
NAMES = {"web": ("10.1.0.1", "10.1.0.2"), "big": tuple(f"10.1.1.{n}" for n in range(200))}


def state(*listening: str, client: Client | None = None, **more: tuple[str, ...]) -> ResolverState:
    zone = Zone(network="n", listen=listening or (HERE,), names={**NAMES, **more})
    own = Client(zones=("n",), upstreams=(SECOND,))
    shut = Client(zones=("n",), outside=False)
    clients = {"127.0.0.1": client or Client(zones=("n",)), OWN: own, "127.0.0.62": shut, "::1": own}
    return ResolverState(zones={"n": zone}, clients=clients)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[ResolverLab]:
    async with resolver_lab(tmp_path, f"nameserver {FIRST}\nnameserver {SECOND}\n") as made:
        await made.put(state())
        yield made


def addresses(reply: dns.message.Message) -> list[str]:
    return sorted(str(item) for rrset in reply.answer for item in rrset)


def good(words: dns.message.Message, udp: bool) -> list[bytes]:
    return [answer(words, "192.0.2.1")]


def fails(words: dns.message.Message, udp: bool) -> list[bytes]:
    return [answer(words, rcode="SERVFAIL")]


def silent(words: dns.message.Message, udp: bool) -> list[bytes]:
    return []


def cut(words: dns.message.Message, udp: bool) -> list[bytes]:
    whole = [f"192.0.2.{n}" for n in range(100)]
    return [answer(words, cut=True)] if udp else [answer(words, *whole)]


def cut_without_tcp(words: dns.message.Message, udp: bool) -> list[bytes]:
    return [answer(words, "192.0.2.1", cut=True)] if udp else []


def lies_first(words: dns.message.Message, udp: bool) -> list[bytes]:
    wrong_id = answer(words, "192.0.2.66")
    other = dns.message.make_query("other.example", "A", id=words.id)
    own_question = words.to_wire()
    return [
        bytes([wrong_id[0] ^ 1]) + wrong_id[1:],
        answer(other, "192.0.2.66"),
        own_question,
        b"",
        b"junk",
        answer(words, "192.0.2.1"),
    ]


def broken(words: dns.message.Message, udp: bool) -> list[bytes]:
    return [answer(words, "192.0.2.66")[:-2]]


async def test_own_names_by_udp_and_tcp(lab: ResolverLab) -> None:
    assert addresses(await lab.ask(query("web"), to=HERE)) == ["10.1.0.1", "10.1.0.2"]
    many = await lab.ask_by_tcp(query("web.n"), query("big"), query("nosuch"), to=HERE, source="127.0.0.62")
    assert [len(addresses(reply)) for reply in many] == [2, 200, 0]
    assert (await lab.ask(query("big"), to=HERE)).flags & dns.flags.TC
    refused = await lab.ask(query("web"), to=HERE, source="127.0.0.99")
    assert refused.rcode() == dns.rcode.REFUSED


async def test_own_names_by_ipv6(lab: ResolverLab) -> None:
    await lab.put(state(HERE, "::1"))
    assert len(addresses(await lab.ask(query("web"), to="::1", source="::1"))) == 2


async def test_foreign_name_goes_to_the_hosts_server_or_the_containers_own(lab: ResolverLab) -> None:
    async with (
        name_server(FIRST, lab.upstream_port, good) as first,
        name_server(SECOND, lab.upstream_port, good) as second,
    ):
        assert addresses(await lab.ask(query("Example.com"), to=HERE)) == ["192.0.2.1"]
        assert first.asked == ["Example.com."] and second.asked == []
        await lab.ask(query("own.example"), to=HERE, source=OWN)
        assert second.asked == ["own.example."]
        reply = await lab.ask(query("example.com"), to=HERE, source="127.0.0.62")
        assert reply.rcode() == dns.rcode.NXDOMAIN and len(first.asked) == 1


async def test_hosts_servers_are_read_anew(lab: ResolverLab) -> None:
    async with name_server(THIRD, lab.upstream_port, good) as third:
        (lab.folder / "resolv.conf").write_text(f"nameserver {THIRD}\n")
        assert addresses(await lab.ask(query("example.com"), to=HERE)) == ["192.0.2.1"]
        assert third.asked == ["example.com."]


@pytest.mark.parametrize("first", [fails, silent, broken, None])
async def test_second_server_answers_where_the_first_does_not(
    lab: ResolverLab, monkeypatch: pytest.MonkeyPatch, first: Behaviour | None
) -> None:
    if first is silent:  # the others' failures are heard, however long that takes here
        monkeypatch.setattr(exchange, "STEP", 0.5)
    async with name_server(SECOND, lab.upstream_port, good) as second:
        if first is None:
            assert addresses(await lab.ask(query("a.example"), to=HERE)) == ["192.0.2.1"]
            return
        async with name_server(FIRST, lab.upstream_port, first) as other:
            assert addresses(await lab.ask(query("a.example"), to=HERE)) == ["192.0.2.1"]
            assert addresses(await lab.ask(query("b.example"), to=HERE)) == ["192.0.2.1"]
            assert len(other.asked) == (1 if first is silent else 2), "a silent server is asked last"
            assert len(second.asked) == 2


async def test_late_answer_of_the_first_server_still_counts(
    lab: ResolverLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "STEP", 0.05)
    held: list[tuple[bytes, tuple[str, int]]] = []
    async with (
        name_server(FIRST, lab.upstream_port, silent) as first,
        name_server(SECOND, lab.upstream_port, silent) as second,
    ):
        first.datagram_received = lambda data, addr: held.append((data, addr))  # type: ignore[method-assign]
        asking = asyncio.ensure_future(lab.ask(query("a.example"), to=HERE))
        await until(lambda: second.asked, deadline=5)
        data, addr = held[0]
        assert first._transport is not None
        first._transport.sendto(answer(dns.message.from_wire(data), "192.0.2.9"), addr)
        assert addresses(await asking) == ["192.0.2.9"]


async def test_dead_servers_end_in_servfail_and_own_names_are_untouched(
    lab: ResolverLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "STEP", 0.5)
    monkeypatch.setattr(exchange, "DEADLINE", 2.0)
    monkeypatch.setattr(forward, "MOST_OF_ONE", 40)
    async with (
        name_server(FIRST, lab.upstream_port, silent),
        name_server(SECOND, lab.upstream_port, silent),
    ):
        asking = [asyncio.ensure_future(lab.ask(query(f"n{n}.example"), to=HERE)) for n in range(60)]
        forwarder = lab.resolver._forwarder
        assert forwarder is not None
        await until(lambda: forwarder.under_way == 40, deadline=5, what="as many as one may have")
        assert len(addresses(await lab.ask(query("web"), to=HERE))) == 2
        replies = await asyncio.gather(*asking)
        assert {reply.rcode() for reply in replies} == {dns.rcode.SERVFAIL}
        await until(lambda: forwarder.under_way == 0, deadline=5)


async def test_failure_of_all_servers_is_told_as_they_say_it(lab: ResolverLab) -> None:
    async with (
        name_server(FIRST, lab.upstream_port, fails) as first,
        name_server(SECOND, lab.upstream_port, fails),
    ):
        for _ in range(2):
            assert (await lab.ask(query("a.example"), to=HERE)).rcode() == dns.rcode.SERVFAIL
        assert len(first.asked) == 2, "a failure is not kept"


async def test_false_answers_are_not_heard(lab: ResolverLab) -> None:
    async with name_server(FIRST, lab.upstream_port, lies_first):
        assert addresses(await lab.ask(query("a.example"), to=HERE)) == ["192.0.2.1"]


async def test_answer_that_is_cut_off_is_fetched_by_tcp(lab: ResolverLab) -> None:
    async with name_server(FIRST, lab.upstream_port, cut) as first:
        short = await lab.ask(query("a.example"), to=HERE)
        assert short.flags & dns.flags.TC and 20 < len(addresses(short)) < 40
        (whole,) = await lab.ask_by_tcp(query("a.example"), to=HERE)
        assert len(addresses(whole)) == 100 and len(first.asked) == 2, "the second came out of the cache"


async def test_answer_that_is_cut_off_and_has_no_tcp_comes_as_it_is(lab: ResolverLab) -> None:
    async with name_server(FIRST, lab.upstream_port, cut_without_tcp):
        reply = await lab.ask(query("a.example"), to=HERE)
        assert reply.flags & dns.flags.TC and addresses(reply) == ["192.0.2.1"]


async def test_answers_are_kept_and_equal_questions_asked_once(lab: ResolverLab) -> None:
    held: list[tuple[bytes, tuple[str, int]]] = []
    async with name_server(FIRST, lab.upstream_port, good) as first:
        real = first.datagram_received
        first.datagram_received = lambda data, addr: held.append((data, addr))  # type: ignore[method-assign]
        asking = [asyncio.ensure_future(lab.ask(query("a.example"), to=HERE)) for _ in range(5)]
        forwarder = lab.resolver._forwarder
        assert forwarder is not None
        flights = forwarder._flights
        await until(lambda: held and sum(len(f.waiters) for f in flights.values()) == 5, deadline=5)
        real(*held[0])
        assert [addresses(reply) for reply in await asyncio.gather(*asking)] == [["192.0.2.1"]] * 5
        assert addresses(await lab.ask(query("a.example"), to=HERE)) == ["192.0.2.1"]
        assert first.asked == ["a.example."] and len(held) == 1


async def test_ids_and_ports_towards_servers_can_not_be_guessed(lab: ResolverLab) -> None:
    async with name_server(FIRST, lab.upstream_port, good) as first:
        for n in range(20):
            await lab.ask(query(f"n{n}.example"), to=HERE)
        assert len(set(first.idents)) > 15 and len(first.ports) > 15


async def test_own_addresses_are_never_asked(lab: ResolverLab) -> None:
    (lab.folder / "resolv.conf").write_text(f"nameserver {HERE}\n")
    assert (await lab.ask(query("a.example"), to=HERE)).rcode() == dns.rcode.SERVFAIL


async def test_loop_through_a_containers_server_ends(
    lab: ResolverLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "STEP", 0.1)
    monkeypatch.setattr(exchange, "DEADLINE", 0.4)
    (lab.folder / "resolv.conf").write_text(f"nameserver {FIRST}\n")
    async with name_server(FIRST, lab.upstream_port, silent) as first:

        def back_to_us(data: bytes, addr: tuple[str, int]) -> None:
            first.asked.append("again")
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", 0))
                sock.sendto(data, (HERE, lab.port))

        first.datagram_received = back_to_us  # type: ignore[method-assign]
        assert (await lab.ask(query("a.example"), to=HERE)).rcode() == dns.rcode.SERVFAIL
        assert len(first.asked) <= exchange.MOST_TRIES


async def test_new_state_is_served_and_addresses_come_and_go(lab: ResolverLab) -> None:
    verdict = await lab.put(state(HERE, THERE, new=("10.1.0.9",)))
    assert not verdict.refused and not verdict.troubles
    for to in (HERE, THERE):
        assert addresses(await lab.ask(query("new"), to=to)) == ["10.1.0.9"]
    _, writer = await asyncio.open_connection(HERE, lab.port)
    await lab.put(state(THERE))
    assert addresses(await lab.ask(query("web"), to=THERE)) == ["10.1.0.1", "10.1.0.2"]
    with pytest.raises(ConnectionError):
        await lab.ask(query("web"), to=HERE)
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(HERE, lab.port)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("bad", [b"", b"{", b"[]", b'{"zones": {"n": {"network": 7}}}', b"\xff" * 99])
async def test_broken_state_is_refused_and_the_old_one_served(
    lab: ResolverLab, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    verdict = await lab.put(bad)
    assert verdict.refused and "\n" not in verdict.refused
    assert len(addresses(await lab.ask(query("web"), to=HERE))) == 2
    assert "refused" in caplog.text
    assert not (await lab.put(state(x=("10.1.0.3",)))).refused
    assert addresses(await lab.ask(query("x"), to=HERE)) == ["10.1.0.3"]


async def test_state_with_a_bad_range_is_refused(lab: ResolverLab) -> None:
    zone = Zone(network="n", ranges=("10.1.0.0/99",))
    bad = ResolverState(zones={"n": zone}, clients={"127.0.0.1": Client(zones=("n",))})
    assert "10.1.0.0/99" in (await lab.put(bad)).refused


async def test_address_that_is_taken_is_told_and_tried_again(
    lab: ResolverLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("net.resolver.serve.RETRY", 0.05)
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind((THERE, lab.port))
        verdict = await lab.put(state(HERE, THERE))
        assert any(THERE in trouble and "another DNS server" in trouble for trouble in verdict.troubles)
        assert len(addresses(await lab.ask(query("web"), to=HERE))) == 2
    await until(lambda: lab.verdict and not lab.verdict.troubles, deadline=5, what="listening after all")
    assert len(addresses(await lab.ask(query("web"), to=THERE))) == 2


async def test_address_of_a_bridge_that_is_not_there_yet_is_listened_on(lab: ResolverLab) -> None:
    assert (await lab.put(state(HERE, "192.0.2.77", "fd00:99::1"))).troubles == ()


async def test_junk_by_udp_and_tcp_ends_nothing(lab: ResolverLab) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        for data in (b"", b"x", b"\xff" * 60_000, query("web").to_wire()[:-3], b"\0" * 12):
            sock.sendto(data, (HERE, lab.port))
    reader, writer = await asyncio.open_connection(HERE, lab.port)
    writer.write(b"\xff\xff" + b"\0\1\1\0\0\1" + b"\0" * 65529)
    size = int.from_bytes(await reader.readexactly(2), "big")
    assert dns.message.from_wire(await reader.readexactly(size)).rcode() == dns.rcode.FORMERR
    writer.close()
    assert len(addresses(await lab.ask(query("web"), to=HERE))) == 2


async def test_connections_are_bounded_and_idle_ones_end(
    lab: ResolverLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "IDLE", 0.2)
    monkeypatch.setattr(listen, "MOST_OF_ONE", 3)
    made = [await asyncio.open_connection(HERE, lab.port) for _ in range(5)]
    async with asyncio.timeout(5):
        for reader, writer in made:
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass
            writer.close()
    monkeypatch.setattr(listen, "IDLE", 5.0)
    assert len(addresses((await lab.ask_by_tcp(query("web"), to=HERE))[0])) == 2
