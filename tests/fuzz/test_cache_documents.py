"""Whatever a registry or a folder gives for a build cache: records, or a refusal."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image.build.cacheformat import decode, decode_inline, encode
from image.manifest import Descriptor
from image.peers.records import checked
from model.errors import Damaged
from model.sharedcache import MAX_LAYERS, SharedLayer, SharedRecord
from tests.support.images import digest

FULL = os.environ.get("FLOTA_FULL") == "1"
pytestmark = pytest.mark.timeout(900 if FULL else 120)
examples = settings(
    max_examples=20_000 if FULL else 400,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
LAYERS = tuple(SharedLayer(diff=digest(b"d%d" % n), blob=digest(b"b%d" % n), size=n) for n in range(4))
RECORDS = [
    SharedRecord(key=digest(b"r%d" % n), ident=str(n) * 64, layers=LAYERS[: n + 1], kind="run")
    for n in range(4)
]
SEED = encode(RECORDS, {})
SCALARS = st.one_of(
    st.none(), st.integers(-3, 5), st.floats(), st.text(max_size=3), st.sampled_from([LAYERS[0].blob, -1])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                ["layers", "records", "blob", "parent", "annotations", "digest", "layer", "flota"]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)


def judged(data: bytes) -> None:
    try:
        document = decode(data)
        for record in RECORDS:
            found = document.get(record.key)
            if found is not None:
                assert 0 <= len(checked(found, record.key).layers) <= MAX_LAYERS
    except Damaged:
        return


@examples
@given(st.lists(st.tuples(st.integers(0, len(SEED)), st.binary(max_size=3)), max_size=4))
def test_damaged_cache_gives_records_or_a_refusal(edits: list[tuple[int, bytes]]) -> None:
    data = bytearray(SEED)
    for place, piece in edits:
        data[place : place + len(piece)] = piece
    judged(bytes(data))


@examples
@given(JSON)
def test_strange_cache_gives_records_or_a_refusal(value: object) -> None:
    judged(json.dumps(value).encode())
    document = {"layers": value, "records": json.loads(SEED)["records"]}
    judged(json.dumps(document).encode())
    document = {"layers": json.loads(SEED)["layers"], "records": value}
    judged(json.dumps(document).encode())


@examples
@given(st.text(max_size=40), st.integers(0, 3))
def test_strange_cache_in_an_image_gives_records_or_a_refusal(text: str, count: int) -> None:
    layers = [Descriptor(digest=one.blob, size=one.size) for one in LAYERS[:count]]
    try:
        decode_inline(text, layers, [one.diff for one in LAYERS[:count]])
    except Damaged:
        return
