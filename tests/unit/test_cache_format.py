"""Build caches as documents: what is written is read again, BuildKit's are read, an enemy's are refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from image.build.cacheformat import CONFIG, decode, decode_inline, encode, encode_inline, manifest
from image.manifest import Descriptor
from model.errors import Damaged
from model.sharedcache import SharedLayer, SharedRecord
from tests.support.images import digest

LAYERS = tuple(SharedLayer(diff=digest(b"d%d" % n), blob=digest(b"b%d" % n), size=100 + n) for n in range(4))


def record(name: str, *layers: int) -> SharedRecord:
    return SharedRecord(
        key=digest(name.encode()),
        ident=f"id-{name}",
        layers=tuple(LAYERS[n] for n in layers),
        created=1_700_000_000.5,
        source=f"RUN {name}",
        kind="run",
        size=7,
        seconds=1.25,
    )


RECORDS = [record("a", 0), record("b", 0, 1), record("c", 0, 1, 2), record("d", 0, 3)]


def test_cache_that_was_written_is_read_again_with_each_layer_once() -> None:
    data = encode(RECORDS, {LAYERS[0].blob: "application/x"})
    assert data == encode(RECORDS[::-1], {LAYERS[0].blob: "application/x"})
    raw = json.loads(data)
    assert len(raw["layers"]) == 4 and raw["layers"][0]["annotations"]["mediaType"] == "application/x"
    document = decode(data)
    assert len(document) == 4
    assert [document.get(one.key) for one in RECORDS] == RECORDS
    assert document.get(digest(b"other")) is None


def test_cache_in_an_image_has_the_steps_of_its_own_layers() -> None:
    diffs = [layer.diff for layer in LAYERS[:3]]
    text = encode_inline(RECORDS, diffs)
    layers = [Descriptor(digest=layer.blob, size=layer.size) for layer in LAYERS[:3]]
    document = decode_inline(text, layers, diffs)
    assert [document.get(one.key) for one in RECORDS] == [*RECORDS[:3], None]
    assert encode_inline(RECORDS[3:], diffs) == ""


def test_cache_of_buildkit_is_read_and_has_none_of_our_steps() -> None:
    key = digest(b"theirs")
    theirs = {
        "layers": [
            {"blob": LAYERS[0].blob, "parent": -1, "annotations": {"createdAt": "2026-01-01T00:00:00Z"}},
            {"blob": LAYERS[1].blob},
        ],
        "records": [
            {"digest": key, "layers": [{"layer": 1, "createdAt": "0001-01-01T00:00:00Z"}]},
            {"digest": digest(b"y"), "inputs": [[{"selector": "sha256:0", "link": 0}]]},
        ],
    }
    assert len(decode(json.dumps(theirs).encode())) == 0


def test_cache_document_names_its_configuration_and_each_blob_once() -> None:
    data = encode(RECORDS, {})
    blobs = [Descriptor(digest=one.blob, size=one.size, media_type="m") for one in (*LAYERS, LAYERS[0])]
    raw = json.loads(manifest(data, blobs))
    assert raw["config"] == {"mediaType": CONFIG, "digest": digest(data), "size": len(data)}
    assert [one["digest"] for one in raw["layers"]] == [one.blob for one in LAYERS]


def changed(**changes: Any) -> bytes:
    raw = json.loads(encode(RECORDS[:2], {}))
    raw.update(changes)
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        changed(records={}),
        changed(layers=[{"blob": "sha256:../../x", "parent": -1}]),
        changed(layers=[{"blob": LAYERS[0].blob, "parent": "x"}]),
        changed(layers=[{"blob": LAYERS[0].blob, "parent": -1, "annotations": {"size": -5}}]),
        changed(records=[{"digest": "x"}] * 20_001),
    ],
)
def test_cache_that_can_not_be_is_refused(data: bytes) -> None:
    with pytest.raises(Damaged):
        decode(data)


@pytest.mark.parametrize("parent", [0, 1, 7, -2])
def test_cache_whose_layers_are_no_chain_gives_nothing(parent: int) -> None:
    layers = json.loads(encode(RECORDS[:2], {}))["layers"]
    layers[0]["parent"] = parent
    document = decode(changed(layers=layers))
    with pytest.raises(Damaged, match="no chain"):
        document.get(RECORDS[1].key)


def test_inline_cache_that_is_no_base64_is_refused() -> None:
    for text in ("!", base64.b64encode(b"{").decode()):
        with pytest.raises(Damaged):
            decode_inline(text, (), ())
