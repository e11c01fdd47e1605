"""What BuildKit's clients ask for, as requests to our builder: by frontend attributes, outputs, caches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from api.docker.buildkit.attributes import Typed, plan_of
from api.docker.buildkit.framing import Unframer, error_of, frame, quoted, status_of, unquoted
from api.docker.buildkit.front import SECRETS, Folder, exporters_of, registries_named
from api.docker.buildkit.messages import StatusResponse
from api.docker.buildkit.trace import Trace
from model.build import (
    ANY,
    BuildWarning,
    CacheWay,
    Context,
    FromHost,
    Output,
    StepBegan,
    StepEnded,
    StepMoved,
    StepSaid,
)
from model.errors import Exhausted, FlotaError, InvalidInput, NotFound, Unavailable, Unsupported

IMAGE: tuple[Typed, ...] = (("moby", {"name": "a,b:2"}),)


def plan(attrs: Mapping[str, str], exporters: tuple[Typed, ...] = IMAGE, **more: Any) -> Any:
    exports = more.get("exports", ())
    return plan_of(attrs, exporters, exports, more.get("allow", ()), lambda method: method == SECRETS)


def test_attributes_of_every_kind_come_to_one_request() -> None:
    made = plan(
        {
            "filename": "d/F", "target": "t", "build-arg:A": "1", "label:l": "v", "no-cache": "",
            "platform": "linux/amd64,linux/arm64", "image-resolve-mode": "pull", "force-network-mode": "none",
            "add-hosts": "h=1.2.3.4,g=::1", "shm-size": "65536",
            "ulimit": "nofile=1:2,core=3", "memory": "4096",
            "cpuquota": "50000", "cache-imports": '[{"Type": "registry", "Attrs": {"ref": "c"}}]',
            "context:img": "docker-image://box", "context:more": "local:more",
            "attest:provenance": "mode=max",
            "local-sessionid:context": "other", "sharedkey:localdir:x": "y", "frontend.caps": "z",
        },
        allow=("network.host",),
    )  # fmt: skip
    request = made.request
    assert (request.file, request.target, request.no_cache, request.pull) == ("d/F", "t", True, True)
    assert request.args == {"A": "1"} and request.labels == {"l": "v"} and request.network == "none"
    assert request.platforms == ("linux/amd64", "linux/arm64") and request.hosts == ("h:1.2.3.4", "g:::1")
    assert request.ulimits == {"nofile": (1, 2), "core": (3, 3)} and request.shm_size == 65536
    assert request.resources.memory == 4096 and request.resources.nano_cpus == 500_000_000
    assert request.cache_from == (CacheWay(kind="registry", options={"ref": "c"}),)
    assert request.provenance == "max" and request.allow == ("network.host",)
    assert request.names == ("a", "b:2") and request.outputs == (Output(),)
    assert request.secrets == (ANY,) and request.ssh == ()
    assert {one.name: one.kind for one in request.contexts} == {"": "tar", "img": "image", "more": "tar"}
    assert made.dockerfile == Folder(name="dockerfile")
    assert made.folders == {"": Folder(name="context", session="other"), "more": Folder(name="more")}


def test_context_that_is_not_the_clients_leaves_its_dockerfile_there() -> None:
    made = plan({"context": "https://example.com/r.git#main"})
    assert made.request.contexts == (Context(kind="git", ref="https://example.com/r.git#main"),)
    assert made.dockerfile is None and not made.folders
    made = plan({"context": "https://example.com/r.git", "dockerfilekey": "dockerfile"})
    assert made.dockerfile == Folder(name="dockerfile")
    made = plan({"context": "http://buildkit-session/abc"})
    assert made.request.contexts[0].kind == "tar" and not made.folders


@pytest.mark.parametrize(
    ("exporters", "outputs"),
    [
        ((), (Output(),)),
        ((("cacheonly", {}),), ()),
        (
            (("oci", {"rewrite-timestamp": "true", "tar": "true"}),),
            (Output(kind="oci", options={"rewrite-timestamp": "true"}),),
        ),
        ((("moby", {"push": "true", "name": "r.io/a"}),), (Output(kind="registry"),)),
        ((("local", {}),), (Output(kind="local"),)),
        ((("oci", {}), ("tar", {})), (Output(kind="oci"), Output(kind="tar"))),
    ],
)
def test_exporters_are_outputs(exporters: tuple[Typed, ...], outputs: tuple[Output, ...]) -> None:
    assert plan({}, exporters).request.outputs == outputs


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        ({"new-attribute": "1"}, "new-attribute"),
        ({"requestid": "frontend.lint"}, "frontend.lint"),
        ({"cgroup-parent": "/x"}, "cgroup-parent"),
        ({"context:x": "oci-layout://x"}, "oci-layout"),
        ({"context:x": "input:x"}, "input"),
        ({"context": "/etc"}, "/etc"),
        ({"ulimit": "nofile"}, "ulimit"),
        ({"ulimit": "nofile=x"}, "ulimit"),
        ({"shm-size": "9" * 30}, "shm-size"),
        ({"memory": "-5"}, "memory"),
        ({"add-hosts": "x"}, "add-hosts"),
        ({"cache-imports": "{"}, "cache-imports"),
        ({"cache-imports": '[{"Type": "local"}]'}, "local"),
        ({"force-network-mode": "bridge9"}, "force-network-mode"),
        ({"attest:provenance": "mode=mid"}, "mid"),
        ({"attest:provenance": "version=v9"}, "v9"),
        ({"attest:provenance": "builder-id=x"}, "no URI"),
        ({"attest:provenance": "reproducible=true"}, "reproducible"),
        ({"attest:sbom": "generator=x"}, "generator"),
        ({"attest:x": "1=2"}, "attest:x"),
        ({"platform": "a b"}, "platform"),
    ],
)
def test_what_can_not_be_done_is_refused_by_its_name(attrs: dict[str, str], words: str) -> None:
    with pytest.raises((InvalidInput, Unsupported), match=words):
        plan(attrs)


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("", ("min", "v0.2", "")),
        ("true", ("min", "v0.2", "")),
        ("mode=max,version=v1,builder-id=urn:x:y", ("max", "v1", "urn:x:y")),
        ("mode=min,inline-only=true", ("", "v0.2", "")),
        ("mode=max,disabled=true", ("", "v0.2", "")),
        ("false", ("", "v0.2", "")),
    ],
)
def test_provenance_is_stated_where_a_user_asked_for_it(text: str, stated: tuple[str, str, str]) -> None:
    request = plan({"attest:provenance": text, "attest:sbom": ""}).request
    assert (request.provenance, request.provenance_version, request.builder_id) == stated
    assert request.sbom


def test_output_that_is_not_known_is_refused() -> None:
    for type_, attrs in (("s3", {}), ("image", {"compression": "zstd"})):
        with pytest.raises((InvalidInput, Unsupported)):
            plan({}, ((type_, attrs),))
    for text in ("{", "[1]", "[" * 60_000):
        with pytest.raises(InvalidInput, match="outputs"):
            exporters_of(text)


def test_registries_that_a_dockerfile_names_are_those_asked_about() -> None:
    text = b"FROM r.example:5000/a AS x\nFROM --platform=$P quay.io/b\nCOPY --from=localhost/c a/b ./c.d/e\n"
    found = registries_named(text, "ghcr.io/o/x", "plain")
    assert found[:2] == ("docker.io", "ghcr.io") and {"r.example:5000", "quay.io", "localhost"} <= {*found}


def shown(trace: Trace, said: FromHost, now: float) -> StatusResponse:
    made = trace.take(said, now)
    assert made is not None
    return made


def test_trace_shows_steps_from_their_beginning_to_their_end() -> None:
    trace = Trace("build")
    [began] = shown(trace, StepBegan(step=1, name="[1/1] RUN x"), 10.5).vertexes
    assert began.name == "[1/1] RUN x" and began.started is not None and began.started.nanos == 500_000_000
    [log] = shown(trace, StepSaid(step=1, data=b"\xff", stderr=True), 11).logs
    assert (log.vertex, log.stream, log.data) == (began.digest, 2, b"\xff")
    trace.take(StepMoved(step=1, what="layer", current=1, total=4), 11)
    ended = trace.take(StepEnded(step=1, seconds=2, cached=True), 13)
    assert ended is not None and ended.vertexes[0].cached and ended.vertexes[0].completed is not None
    assert ended.vertexes[0].started == began.started, "another beginning would be another run of it"
    assert [(one.id, one.current, one.completed is not None) for one in ended.statuses] == [
        ("layer", 1, True)
    ]
    [warning] = shown(trace, BuildWarning(code="C", message="m", line=3), 13).warnings
    assert warning.short == b"C: line 3: m"
    trace.take(StepBegan(step=2, name="two"), 14)
    left = trace.ended("it broke", 15)
    assert left is not None and [(one.name, one.error) for one in left.vertexes] == [("two", "it broke")]
    assert trace.ended("", 16) is None


def test_frames_come_out_whole_in_any_pieces_and_bad_ones_are_refused_by_their_head() -> None:
    data = frame(b"") + frame(b"abc") + frame(b"x" * 1000)
    for size in (1, 3, 4096):
        unframer = Unframer()
        found = [one for at in range(0, len(data), size) for one in unframer.feed(data[at : at + size])]
        assert found == [b"", b"abc", b"x" * 1000] and unframer.between
    with pytest.raises(InvalidInput, match="bytes"):
        Unframer(10).feed(b"\0\0\0\0\x0b")
    with pytest.raises(Unsupported, match="compressed"):
        Unframer().feed(b"\1\0\0\0\0")


@pytest.mark.parametrize(
    "error", [NotFound("a"), InvalidInput("b"), Unavailable("c"), Exhausted("d"), FlotaError("e")]
)
def test_errors_have_codes_and_come_back_as_themselves(error: FlotaError) -> None:
    code, message = status_of(error)
    back = error_of(code, unquoted(quoted(message)), "Method")
    assert str(back) == f"Method: {error}" and (type(back) is type(error) or code == 2)


def test_message_of_a_status_is_ascii_and_comes_back() -> None:
    assert quoted("a%b\nü") == "a%25b%0A%C3%BC" and unquoted("a%25b%0A%C3%BC%") == "a%b\nü%"
