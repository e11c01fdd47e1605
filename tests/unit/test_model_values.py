"""Quantities, ids, codec, errors, streams and views."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import codec, errors, ids, quantity, streams, view, wire
from model.errors import Ambiguous, InvalidInput, NotFound
from model.ids import HostId, InstanceId, NetworkId
from model.records import Desired, Instance
from model.spec import ContainerSpec, Global, Publish, Replicated, ServiceSpec


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("64m", 64 << 20),
        ("1.5g", 3 << 29),
        ("4096", 4096),
        ("2GiB", 2 << 30),
        ("1KB", 1024),
        ("7b", 7),
    ],
)
def test_bytes_as_docker_writes_them_are_parsed(text: str, count: int) -> None:
    assert quantity.parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "1Q", "-5m", "1e999", "m", "1 2", "9" * 16 + "g", "999999p", "1m\n1"])
def test_bytes_that_are_none_are_refused_with_their_text(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"size"):
        quantity.parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (4097, "4097"),
        (1536 << 10, "1536k"),
        (10 << 20, "10m"),
        (1 << 40, "1t"),
        (1 << 60, "1048576t"),
    ],
)
def test_exact_bytes_are_read_back_as_they_were(count: int, text: str) -> None:
    assert quantity.exact_bytes(count) == text
    assert quantity.parse_bytes(text) == count


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_bools_as_docker_writes_them_are_parsed(text: str) -> None:
    assert quantity.parse_bool(text, "x") is True
    opposite = {"1": "0", "t": "f", "T": "F", "TRUE": "FALSE", "true": "false", "True": "False"}
    assert quantity.parse_bool(opposite[text], "x") is False


@pytest.mark.parametrize("text", ["", "yes", "on", "y", "tRUE", "2", " true", "no"])
def test_bools_that_are_none_are_refused_with_their_field(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"readonly.*neither true nor false"):
        quantity.parse_bool(text, "mount readonly")


def test_cpus_below_one_nano_are_refused() -> None:
    assert quantity.parse_cpus("0.5") == 500_000_000
    with pytest.raises(InvalidInput):
        quantity.parse_cpus("0.0000000001")
    with pytest.raises(InvalidInput):
        quantity.parse_cpus("two")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600), ("1.5s", 1.5)]
)
def test_durations_are_parsed(text: str, seconds: float) -> None:
    assert quantity.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-1s", "1x", "s", "NaN", "1e300h", "1s 1x"])
def test_durations_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        quantity.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00Z", 1769860800.0),
        ("2026-01-31T13:00:00+01:00", 1769860800.0),
        ("1769860800", 1769860800.0),
        ("1769860800.5", 1769860800.5),
        ("90", 1999999910.0),
        ("1h30m", 1999994600.0),
        ("5d", 1999568000.0),
        ("2000d", 1827200000.0),
    ],
)
def test_moments_are_times_or_durations_before_now(text: str, moment: float) -> None:
    assert quantity.parse_moment(text, 2e9) == pytest.approx(moment)


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "1e9", "-5", "2026-13-01"])
def test_moments_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        quantity.parse_moment(text, 2e9)


def test_ids_resolve_by_id_name_and_unique_prefix() -> None:
    one, two = "ab" * 32, "ac" * 32
    known = [(one, "web"), (two, "db")]
    assert ids.resolve("container", one, known) == one
    assert ids.resolve("container", "/web", known) == one
    assert ids.resolve("container", "ac", known) == two
    with pytest.raises(Ambiguous, match=r"fits 2 containers"):
        ids.resolve("container", "a", known)
    with pytest.raises(NotFound, match="no such container: x"):
        ids.resolve("container", "x", known)


def test_a_replica_is_found_by_its_service_and_number() -> None:
    one, two = "ab" * 32, "cd" * 32
    known = [(one, f"web.1.{ids.short(one)}"), (two, f"web.2.{ids.short(two)}")]
    assert ids.resolve("container", "web.2", known) == two


def test_a_name_wins_over_an_id_prefix() -> None:
    assert ids.resolve("container", "ab", [("ab" * 32, "x"), ("cd" * 32, "ab")]) == "cd" * 32


@pytest.mark.parametrize("name", ["", "-x", "a b", "../x", "x\n", "é", "a" * 129, "a/b", "\x1b[31m"])
def test_names_with_other_letters_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        ids.check_name("network", name)


def test_strict_decode_names_every_unknown_field_at_once() -> None:
    container = b'{"image":"x","foo":1,"ports":[{"target":1,"z":3}]}'
    body = b'{"name":"w","container":' + container + b',"mode":{"mode":"global","q":1}}'
    with pytest.raises(InvalidInput) as caught:
        codec.decode_strict(body, ServiceSpec)
    assert [p.path for p in caught.value.problems] == ["container.foo", "container.ports[0].z", "mode.q"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"name":"w"}', "container"),
        (b'{"name":1,"container":{"image":"x"}}', "name: Expected `str`"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"name":"w","container":{"image":"x"},"mode":{"mode":"replicated","replicas":1.5}}', "replicas"),
        (b'{"name":"w","container":{"image":"x"},"mode":{"mode":"replicated","replicas":true}}', "replicas"),
    ],
)
def test_strict_decode_says_where_and_what_is_wrong(body: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        codec.decode_strict(body, ServiceSpec)


def test_wire_decode_ignores_fields_of_a_newer_peer() -> None:
    frame = codec.encode_wire({"type": "ping", "serial": 3, "later": "x"})
    assert wire.decode_controller(frame) == wire.Ping(serial=3)
    with pytest.raises(InvalidInput):
        wire.decode_agent(frame)


def test_specs_survive_json_and_wire() -> None:
    spec = ServiceSpec(
        name="web",
        container=ContainerSpec(image="a", ports=(Publish(target=80),), env={"A": "b"}),
        mode=Replicated(replicas=3),
    )
    assert codec.decode_strict(codec.encode_json(spec), ServiceSpec) == spec
    assert (
        codec.decode_strict(
            b'{"name":"w","container":{"image":"x"},"mode":{"mode":"global"}}', ServiceSpec
        ).mode
        == Global()
    )
    assert codec.to_plain(spec)["container"]["args"] is None


def test_errors_travel_as_what_they_are() -> None:
    for cls in errors.BY_CODE.values():
        body = codec.encode_json(errors.ErrorBody.of(cls("it broke", hint="mend it")))
        back = codec.decode_json(body, errors.ErrorBody).to_error()
        assert type(back) is cls and str(back) == "it broke. mend it"
        assert cls.code in errors.HTTP_STATUS


def test_frames_are_found_however_the_bytes_are_cut() -> None:
    sent = [
        (streams.STDOUT, b"hello"),
        (streams.STDIN, b""),
        (streams.EXIT, b"{}"),
        (streams.STDERR, b"x" * 3000),
    ]
    data = b"".join(streams.pack(kind, payload) for kind, payload in sent)
    for step in (1, 7, 8, 4096):
        unframer = streams.Unframer()
        got = [f for i in range(0, len(data), step) for f in unframer.feed(data[i : i + step])]
        assert got == sent
    with pytest.raises(InvalidInput):
        streams.Unframer().feed(b"\xff" * 8)


hosts = st.sampled_from([HostId(f"h{i}") for i in range(4)])
instances = st.builds(
    Instance,
    id=st.sampled_from([InstanceId(f"i{i}") for i in range(5)]),
    name=st.just("x"),
    spec=st.builds(ContainerSpec, image=st.sampled_from(["a", "b"])),
    desired=st.sampled_from(Desired),
)
networks = st.builds(
    view.NetworkView,
    id=st.sampled_from([NetworkId(f"n{i}") for i in range(3)]),
    spec=st.just(wire.msgspec.convert({"name": "n"}, view.NetworkSpec)),
    vni=st.integers(0, 3),
    blocks=st.just(()),
)
peers = st.builds(view.Peer, host=hosts, name=st.just("h"), address=st.sampled_from(["10.0.0.1", "10.0.0.2"]))
views = st.builds(
    lambda revision, i, n, p: view.View(
        revision=revision,
        instances={x.id: x for x in i},
        networks={x.id: x for x in n},
        peers={x.host: x for x in p},
    ),
    st.integers(0, 9),
    st.lists(instances),
    st.lists(networks),
    st.lists(peers),
)


@given(views, views)
def test_a_view_and_its_difference_to_another_give_the_other(old: view.View, new: view.View) -> None:
    delta = view.diff(old, new)
    assert view.apply(delta, old) == new
    assert delta.empty == (codec.to_plain(old) | {"revision": 0} == codec.to_plain(new) | {"revision": 0})
    assert wire.decode_controller(codec.encode_wire(wire.Delta(delta=delta))) == wire.Delta(delta=delta)


def test_a_delta_from_another_revision_is_refused() -> None:
    delta = view.diff(view.View(revision=3), view.View(revision=4))
    assert view.apply(delta, view.View(revision=2)) is None
