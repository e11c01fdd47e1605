"""How the Docker API reads paths, queries, filters and bodies: as Docker does, and nothing in silence."""

# ruff: noqa: E501 - tables

from __future__ import annotations

from collections.abc import Sequence

import pytest
from multidict import MultiDict

from api.docker.bodies import decode
from api.docker.containers.body import CREATE, CreateBody
from api.docker.containers.lifecycle import Stop
from api.docker.containers.listing import List
from api.docker.containers.logs import Logs, tail
from api.docker.detach import DetachKeys, parse_keys
from api.docker.errors import Refusal, told
from api.docker.parameters import parse_filters, parse_query
from api.docker.route import Route
from api.docker.table import HOST, ROUTES
from api.docker.versions import NEWEST, OLDEST, split
from model.errors import Ambiguous, InUse, InvalidInput, NotFound, Unavailable


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/info", (NEWEST, "/info")),
        ("/v1.24/info", (OLDEST, "/info")),
        ("/v1.12/info", (OLDEST, "/info")),
        ("/v1.51/containers/json", ((1, 51), "/containers/json")),
        ("/v1/info", (NEWEST, "/v1/info")),
        ("/v999/info", (NEWEST, "/v999/info")),
        ("/v1.41", (NEWEST, "/v1.41")),
    ],
)
def test_path_without_a_served_version_is_of_the_newest(path: str, expected: object) -> None:
    assert split(path) == expected


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1.52/info", "client version 1.52 is too new. Maximum supported API version is 1.51"),
        ("/v1.11/info", "client version 1.11 is too old. Minimum supported API version is 1.24"),
        ("/v0.1/info", "client version 0.1 is too old. Minimum supported API version is 1.24"),
    ],
)
def test_version_that_is_not_served_is_refused_in_dockers_words(path: str, words: str) -> None:
    with pytest.raises(Refusal) as refused:
        split(path)
    assert refused.value.status == 400 and refused.value.message.startswith(words)


@pytest.mark.parametrize(
    ("text", "truth"),
    [("1", True), ("true", True), ("True", True), ("yes", True), ("", False), ("0", False), ("no", False),
     ("False", False), ("none", False)],
)  # fmt: skip
def test_boolean_is_read_as_docker_reads_it(text: str, truth: bool) -> None:
    assert parse_query(MultiDict({"all": text}), List).all is truth


def test_query_ignores_what_is_unknown_and_names_what_it_cannot_read() -> None:
    assert parse_query(MultiDict({"t": "-1", "colour": "red"}), Stop) == Stop(t=-1)
    with pytest.raises(InvalidInput, match='t: parsing "abc": invalid syntax'):
        parse_query(MultiDict({"t": "abc"}), Stop)
    with pytest.raises(InvalidInput, match="since"):
        parse_query(MultiDict({"since": "yesterday"}), Logs)
    assert parse_query(MultiDict({"since": "1700000000.5"}), Logs).since == 1700000000.5
    assert (tail("all"), tail("12"), tail("abc"), tail("-3")) == (None, 12, None, None)


@pytest.mark.parametrize(
    "text",
    ['{"label":["a=b","c"]}', '{"label":{"a=b":true,"c":true,"d":false}}'],
)
def test_filters_come_in_both_forms(text: str) -> None:
    assert parse_filters(text) == {"label": ("a=b", "c")}


@pytest.mark.parametrize(
    "text", ["junk", "[]", "1", '{"a":1}', '{"a":["b",1]}', '{"a":{"b":1}}', "[" * 100_000]
)
def test_filter_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid filter"):
        parse_filters(text)


def body(text: str) -> CreateBody:
    made = decode(text.encode(), CREATE)
    assert isinstance(made, CreateBody)
    return made


def test_body_is_read_as_go_reads_it() -> None:
    made = body('{"image":"box","CMD":"true","Env":null,"HostConfig":{"memory":5,"Binds":null},"Unknown":1}')
    assert (made.image, made.cmd, made.env, made.host_config.memory) == ("box", "true", (), 5)


def test_null_is_a_fields_zero_at_any_depth() -> None:
    made = body(
        '{"Image":"a","Healthcheck":{"test":["NONE"],"Timeout":null},"ExposedPorts":{"80/tcp":{}},'
        '"NetworkingConfig":{"EndpointsConfig":{"x":null,"y":{"IPAMConfig":null,"Aliases":null}}},'
        '"HostConfig":{"LogConfig":null,"PortBindings":{"80/tcp":null,"81/tcp":[{"HostIp":null,"HostPort":"1"}]},'
        '"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"propagation":"rslave"}}]}}'
    )
    assert made.healthcheck is not None and made.healthcheck.test == ("NONE",)
    assert set(made.networking_config.endpoints_config) == {"x", "y"}
    assert made.host_config.port_bindings["80/tcp"] is None
    [binding] = made.host_config.port_bindings["81/tcp"] or ()
    assert binding.host_port == "1"
    options = made.host_config.mounts[0].bind_options
    assert options is not None and options.propagation == "rslave"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not valid JSON|no image|missing|"),
        ("[]", "no JSON object"),
        ('{"Image": 1}', "Image"),
        ('{"Image":"a","HostConfig":{"KernelMemory":5}}', "HostConfig.KernelMemory: is not supported"),
        ('{"Image":"a","HostConfig":{"devicerequests":[{"Count":1}],"CgroupParent":"/a"}}',
         "HostConfig.CgroupParent: is not supported.*HostConfig.DeviceRequests: is not supported"),
        ('{"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","ClusterOptions":{"a":1}}]}}',
         r"HostConfig.Mounts\[0\].ClusterOptions"),
        ('{"Image":"a","HostConfig":{"Memory":99999999999999999999}}', "HostConfig.Memory: must be"),
    ],
)  # fmt: skip
def test_body_that_asks_for_what_cannot_be_is_refused_by_the_fields_name(text: str, words: str) -> None:
    if not text:
        assert body(text) == CreateBody()
        return
    with pytest.raises(InvalidInput, match=words):
        body(text)


def test_field_that_asks_for_nothing_is_no_error() -> None:
    nothing = (
        '"OomScoreAdj":0,"Links":null,"Devices":[],"OomKillDisable":false,"CpusetMems":"","StorageOpt":{}'
    )
    assert body(f'{{"Image":"a","HostConfig":{{{nothing}}}}}').image == "a"


def test_every_field_of_a_type_is_in_its_table() -> None:
    import msgspec

    for type_, table in (
        (CREATE.type, CREATE.table),
        (type(CreateBody().host_config), CREATE.parts["HostConfig"]),
    ):
        names = {field.encode_name for field in msgspec.structs.fields(type_)}
        assert names <= {field.name for field in table}
        listed = [field.name for field in table]
        assert len(set(listed)) == len(listed)
        done = {field.name for field in table if field.state in ("mapped", "partly")}
        assert done <= names


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotFound("no such container: x"), (404, "No such container: x")),
        (NotFound("no such image: x:1"), (404, "No such image: x:1")),
        (NotFound("no such network: blue"), (404, "network blue not found")),
        (NotFound("no such volume: v"), (404, "get v: no such volume")),
        (Ambiguous("'a' fits 2 containers", hint="Give more digits"), (400, "'a' fits 2 containers. Give more digits")),
        (InUse("it is used"), (409, "it is used")),
        (Unavailable("host n1 is away"), (503, "host n1 is away")),
    ],
)  # fmt: skip
def test_error_has_dockers_status_and_words(error: NotFound, expected: tuple[int, str]) -> None:
    assert told(error) == expected


@pytest.mark.parametrize("routes", [ROUTES, HOST])
def test_routes_are_listed_once_and_are_for_admins_alone(routes: Sequence[Route]) -> None:
    keys = [(route.method, route.path) for route in routes]
    assert len(set(keys)) == len(keys)
    assert {route.role for route in routes} == {"admin"}
    assert all(route.summary for route in routes)


def test_routes_of_a_host_are_those_of_a_fleet() -> None:
    """What is not there would be "page not found" to a client that tells engines apart by less."""
    assert {(r.method, r.path) for r in HOST} == {(r.method, r.path) for r in ROUTES}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/containers/json", "/containers/json"),
        ("GET", "/containers/web/json", "/containers/{name}/json"),
        ("GET", "/containers//web/json", "/containers/{name}/json"),
        ("GET", "/containers/a/b/json", None),
        ("POST", "/containers/json", None),
        ("GET", "/containers/../info", None),
        ("GET", "/info/", None),
        ("HEAD", "/_ping", "/_ping"),
    ],
)
def test_path_finds_its_route_or_none(method: str, path: str, expected: str | None) -> None:
    found = [route.path for route in ROUTES if route.match(method, path, NEWEST) is not None]
    assert found[:1] == ([expected] if expected else [])


def test_detach_keys_are_found_across_pieces_and_others_passed_on() -> None:
    keys = DetachKeys(parse_keys("ctrl-p,ctrl-q"))
    assert keys.feed(b"ab\x10") == (b"ab", False)
    assert keys.feed(b"c") == (b"\x10c", False)
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"\x11rest") == (b"", True)
    assert DetachKeys(b"").feed(b"\x10\x11") == (b"\x10\x11", False)
    assert parse_keys("a,ctrl-[,ctrl-C") == b"a\x1b\x03"
    with pytest.raises(InvalidInput, match="Invalid detach keys"):
        parse_keys("ctrl-p,shift-q")
