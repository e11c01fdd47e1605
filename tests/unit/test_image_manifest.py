"""Manifests, indexes and configurations, honest and hostile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from image.config_blob import encode
from image.manifest import (
    MAX_DOCUMENT,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    choose,
    parse_configuration,
    parse_document,
)
from model.errors import Damaged, FlotaError, Unsupported
from model.image import Origin
from model.spec import ExecProbe, HealthCheck, ShellProbe
from model.status import Platform

D = "sha256:" + "a" * 64
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": D, "size": 2}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": D, "size": 3}
GOOD: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
IMAGE: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "rootfs": {"type": "layers", "diff_ids": [D]},
}


def dump(document: Any) -> bytes:
    return json.dumps(document).encode()


def index(*platforms: str | None) -> Index:
    entries = []
    for number, text in enumerate(platforms):
        entry: dict[str, Any] = {"digest": "sha256:" + f"{number:064x}", "size": 1}
        if text is not None:
            os, arch, *variant = text.split("/")
            entry["platform"] = {"os": os, "architecture": arch, "variant": "".join(variant)}
        entries.append(entry)
    parsed = parse_document(dump({"schemaVersion": 2, "manifests": entries}), OCI_INDEX)
    assert isinstance(parsed, Index)
    return parsed


def test_manifest_is_read() -> None:
    parsed = parse_document(dump(GOOD), OCI_MANIFEST)
    assert isinstance(parsed, Manifest)
    assert (parsed.config.digest, parsed.layers[0].size) == (D, 3)


def test_docker_manifest_is_read() -> None:
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    config = {**CONFIG, "mediaType": "application/vnd.docker.container.image.v1+json"}
    layer = {**LAYER, "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"}
    parsed = parse_document(dump({**GOOD, "mediaType": kind, "config": config, "layers": [layer]}), kind)
    assert isinstance(parsed, Manifest) and parsed.media_type == kind


@pytest.mark.parametrize(
    ("there", "wanted", "chosen"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64", 1),
        (["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], "linux/arm/v7", 1),
        (["linux/arm64/v8"], "linux/arm64", 0),
        (["unknown/unknown", "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64", "linux/amd64"], "linux/amd64", 0),
        ([None], "linux/amd64", 0),
    ],
)
def test_choice_is_the_platform_and_its_best_variant(
    there: list[str | None], wanted: str, chosen: int
) -> None:
    os, arch, *variant = wanted.split("/")
    entry = choose(index(*there), Platform(os=os, arch=arch, variant="".join(variant)))
    assert int(entry.digest[7:], 16) == chosen


@pytest.mark.parametrize("there", [["linux/arm64", "windows/amd64"], [], [None, None]])
def test_choice_without_the_platform_says_what_there_is(there: list[str | None]) -> None:
    with pytest.raises(Unsupported, match="only for"):
        choose(index(*there), Platform(os="linux", arch="amd64"))


def test_configuration_is_read_and_normalised() -> None:
    run = {
        "Env": ["A=b=c", "nothing", "=x"],
        "Cmd": None,
        "Entrypoint": ["/x"],
        "WorkingDir": "srv/../data",
        "Volumes": {"/b/": {}, "a": {}},
        "ExposedPorts": {"80": {}, "53/udp": {}, "8000-8010/tcp": {}},
        "Labels": {"k": "v"},
        "User": "1:2",
        "StopSignal": "SIGINT",
    }
    parsed = parse_configuration(dump({**IMAGE, "config": run, "created": "2024-01-02T03:04:05.123456789Z"}))
    config = parsed.config
    assert (config.env, config.cmd, config.entrypoint) == (("A=b=c",), None, ("/x",))
    assert (config.workdir, config.volumes) == ("/data", ("/a", "/b"))
    assert config.exposed_ports == ("53/udp", "80/tcp", "8000-8010/tcp")
    assert (config.user, config.labels, config.stop_signal) == ("1:2", {"k": "v"}, "SIGINT")
    assert parsed.created == pytest.approx(1704164645.123456)


@pytest.mark.parametrize("created", ["garbage", "0001-01-01T00:00:00Z", "99999-01-01", None])
def test_time_of_creation_that_is_none_is_not_known(created: str | None) -> None:
    assert parse_configuration(dump({**IMAGE, "created": created})).created == 0


def test_history_of_another_length_than_the_layers_is_only_told() -> None:
    """B74."""
    history = [{"created": "garbage", "created_by": f"step {n}"} for n in range(5)]
    parsed = parse_configuration(dump({**IMAGE, "history": history}))
    assert parsed.diff_ids == (D,) and [entry.created_by for entry in parsed.history][-1] == "step 4"


def test_configuration_of_nulls_is_an_empty_one() -> None:
    nulls = dict.fromkeys(["Env", "Cmd", "Entrypoint", "Volumes", "ExposedPorts", "Labels", "User"])
    parsed = parse_configuration(dump({**IMAGE, "config": nulls, "history": None}))
    assert parsed.config.env == () and parsed.config.cmd is None


def test_our_own_configuration_is_read_back() -> None:
    first = parse_configuration(
        dump({**IMAGE, "config": {"Cmd": ["a"], "Env": ["A=1"], "Labels": {"x": "y"}}})
    )
    assert parse_configuration(encode(first)) == first
    assert encode(parse_configuration(encode(first))) == encode(first)


def test_origin_of_a_committed_image_is_read_back_and_a_strangers_is_judged() -> None:
    origin = Origin(parent="sha256:" + "a" * 64, container="b" * 64, image="busybox")
    made = replace(parse_configuration(dump(IMAGE)), origin=origin)
    assert parse_configuration(encode(made)).origin == origin
    assert b"container" not in encode(replace(made, origin=Origin()))
    for said in ({"parent": "x", "container": "y"}, {"parent": 1, "container": [], "container_config": 2}):
        assert parse_configuration(dump({**IMAGE, **said})).origin == Origin()
    shy = {**IMAGE, "container_config": {"Image": "a\nb"}}
    assert parse_configuration(dump(shy)).origin == Origin()


SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("raw", "check"),
    [
        (None, None),
        ({"Test": ["NONE"], "Interval": 5}, HealthCheck(disabled=True)),
        (
            {"Test": ["CMD", "curl", "-f", "localhost"], "Interval": 5 * SECOND, "Timeout": SECOND // 2},
            HealthCheck(probe=ExecProbe(args=("curl", "-f", "localhost")), interval=5.0, timeout=0.5),
        ),
        (
            {"Test": ["CMD-SHELL", "a || b"], "Retries": 7, "StartPeriod": SECOND, "StartInterval": SECOND},
            HealthCheck(probe=ShellProbe(command="a || b"), retries=7, start_period=1.0, start_interval=1.0),
        ),
        ({"Test": [], "Interval": SECOND}, HealthCheck(interval=1.0)),
    ],
)
def test_healthcheck_of_an_image_is_read_and_written(raw: object, check: HealthCheck | None) -> None:
    parsed = parse_configuration(dump({**IMAGE, "config": {"Healthcheck": raw, "Shell": ["/bin/bash"]}}))
    assert parsed.config.health == check and parsed.config.shell == ("/bin/bash",)
    assert parse_configuration(encode(parsed)) == parsed


@pytest.mark.parametrize(
    "raw",
    [
        "CMD true",
        {"Test": "CMD true"},
        {"Test": ["CMD"]},
        {"Test": ["CMD-SHELL", "a", "b"]},
        {"Test": ["EXEC", "a"]},
        {"Test": ["CMD", 1]},
        {"Test": ["CMD", "a\0b"]},
        {"Test": ["CMD", "a"], "Interval": -1},
        {"Test": ["CMD", "a"], "Retries": "3"},
        {"Test": ["CMD", "a"], "Timeout": 1 << 63},
    ],
)
def test_healthcheck_that_is_none_is_refused(raw: object) -> None:
    with pytest.raises(Damaged, match="Healthcheck"):
        parse_configuration(dump({**IMAGE, "config": {"Healthcheck": raw}}))


BAD_MANIFESTS: dict[str, bytes] = {
    "nothing": b"",
    "no json": b"hello",
    "not utf-8": b'{"schemaVersion": 2, "x": "\xff"}',
    "utf-16": json.dumps(GOOD).encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + dump(GOOD),
    "list": b"[]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "too large": dump(GOOD) + b" " * MAX_DOCUMENT,
    "duplicate key": dump(GOOD)[:-1] + b', "layers": []}',
    "nested duplicate key": b'{"schemaVersion": 2, "config": {"size": 1, "size": 2}}',
    "key differing by case": dump({**GOOD, "Layers": []}),
    "NaN": b'{"schemaVersion": NaN}',
    "lone surrogate": b'{"schemaVersion": 2, "x": "\\ud800"}',
    "schema 1": dump({"schemaVersion": 1, "fsLayers": []}),
    "schema 1 in disguise": dump({**GOOD, "fsLayers": []}),
    "schema 3": dump({**GOOD, "schemaVersion": 3}),
    "no schema": dump({"layers": []}),
    "index and manifest": dump({**GOOD, "manifests": []}),
    "manifest that says index": dump({**GOOD, "mediaType": OCI_INDEX}),
    "index that says manifest": dump({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": []}),
    "layer of two cases": dump({**GOOD, "layers": [{**LAYER, "Digest": "sha256:" + "b" * 64}]}),
    "no config": dump({"schemaVersion": 2, "layers": []}),
    "artifact": dump({**GOOD, "config": {**CONFIG, "mediaType": "application/vnd.cncf.helm.config.v1+json"}}),
    "encrypted": dump({**GOOD, "layers": [{**LAYER, "mediaType": f"{LAYER['mediaType']}+encrypted"}]}),
    "no tar": dump({**GOOD, "layers": [{**LAYER, "mediaType": "application/wasm"}]}),
    "foreign": dump({**GOOD, "layers": [{**LAYER, "urls": ["http://evil/"]}]}),
    "layers no list": dump({**GOOD, "layers": {}}),
    "layer no object": dump({**GOOD, "layers": [1]}),
    "too many layers": dump({**GOOD, "layers": [LAYER] * 5000}),
    **{f"size {size!r}": dump({**GOOD, "layers": [{**LAYER, "size": size}]})
       for size in (-1, 1.0, "3", None, True, 1 << 63)},
    "size 1e400": dump(GOOD).replace(b'"size": 3', b'"size": 1e400'),
    "size of many digits": dump(GOOD).replace(b'"size": 3', b'"size": ' + b"9" * 10_000),
    **{f"digest {text[:20]!r}": dump({**GOOD, "layers": [{**LAYER, "digest": text}]})
       for text in ("", "sha256:" + "A" * 64, "sha256:../../x", "md5:" + "a" * 32, D + "\n", D[:-1])},
    "digest no string": dump({**GOOD, "layers": [{**LAYER, "digest": 7}]}),
}  # fmt: skip


@pytest.mark.parametrize("data", BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_hostile_manifest_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(FlotaError) as caught:
        parse_document(data, OCI_MANIFEST if b"manifests" not in data else "")
    assert caught.value.code in ("damaged", "unsupported")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_manifest_that_comes_as_another_type_is_refused() -> None:
    with pytest.raises(Damaged, match="but came as"):
        parse_document(dump(GOOD), OCI_INDEX)


def test_unknown_content_type_leaves_the_documents_own() -> None:
    assert isinstance(parse_document(dump(GOOD), "application/json"), Manifest)


def run(**config: Any) -> bytes:
    return dump({**IMAGE, "config": config})


BAD_CONFIGS: dict[str, bytes] = {
    "no json": b"hello",
    "list": b"[]",
    "env of numbers": run(Env=[1]),
    "env a string": run(Env="A=b"),
    "env with NUL": run(Env=["A=\0"]),
    "cmd a string": run(Cmd="sh -c x"),
    "ports a list": run(ExposedPorts=["80"]),
    "port of letters": run(ExposedPorts={"http/tcp": {}}),
    "port 0": run(ExposedPorts={"0/tcp": {}}),
    "port 65536": run(ExposedPorts={"65536": {}}),
    "port of an unknown protocol": run(ExposedPorts={"80/icmp": {}}),
    "user an object": run(User={}),
    "labels of numbers": run(Labels={"a": 1}),
    "volume nowhere": run(Volumes={"": {}}),
    "volume at the root": run(Volumes={"/a/..": {}}),
    "volume with NUL": run(Volumes={"/a\0": {}}),
    "very many volumes": run(Volumes={f"/v{n}": {} for n in range(20_000)}),
    "command of two cases": run(Cmd=["a"], cmd=["b"]),
    "diff ids of two cases": dump({**IMAGE, "rootfs": {"diff_ids": [D], "Diff_IDs": []}}),
    "config a list": dump({**IMAGE, "config": []}),
    "diff ids no digests": dump({**IMAGE, "rootfs": {"diff_ids": ["x"]}}),
    "diff ids of null": dump({**IMAGE, "rootfs": {"diff_ids": [None]}}),
    "history of numbers": dump({**IMAGE, "history": [1]}),
    "very long history": dump({**IMAGE, "history": [{}] * 20_000}),
    "5000 layers": dump({**IMAGE, "rootfs": {"diff_ids": [D] * 5000}}),
}


@pytest.mark.parametrize("data", BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_hostile_configuration_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(FlotaError) as caught:
        parse_configuration(data)
    assert caught.value.code in ("damaged", "unsupported")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
