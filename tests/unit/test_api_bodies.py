"""Any JSON as a body: a value or a refusal that names the place, for each type that the API takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.routes.table import CONTROLLER
from model.api import CreateInstance, UpdateService
from model.codec import decode_strict, encode_wire, to_plain
from model.errors import InvalidInput
from model.spec import Attachment, ContainerSpec, Mount, Publish, ServiceSpec, Ulimit

BODIES = sorted({r.body for r in CONTROLLER if r.body is not None}, key=lambda t: str(t.__name__))
CONTAINER = ContainerSpec(
    image="box:1", args=("a",), env={"A": "b"}, mounts=(Mount(type="bind", target="/b", source="/a"),),
    ulimits=(Ulimit(name="nofile", soft=1, hard=2),), networks=(Attachment(network="n"),),
    ports=(Publish(target=80),),
)  # fmt: skip
SAMPLES: list[tuple[Any, Any]] = [
    (CreateInstance, CreateInstance(spec=CONTAINER)),
    (UpdateService, UpdateService(spec=ServiceSpec(name="web", container=CONTAINER))),
]
WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5), st.just([]), st.just({}), st.just([[[]]]), st.just({"x": {}}),
)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(p for key, item in items for p in places(item, (*at, key)))]


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = changed(value[place[0]], place[1:], new)
    return copy


@given(st.sampled_from(SAMPLES), st.data())
@settings(max_examples=300)
def test_any_value_in_any_field_is_taken_or_refused(sample: tuple[Any, Any], data: st.DataObject) -> None:
    type_, value = sample
    plain = to_plain(value)
    place = data.draw(st.sampled_from(places(plain)))
    body = json.dumps(changed(plain, place, data.draw(WRONG))).encode()
    try:
        taken = decode_strict(body, type_)
    except InvalidInput as error:
        assert error.message
    else:
        assert isinstance(taken, type_) and encode_wire(taken), "it can be stored"


@given(st.sampled_from(SAMPLES), st.data())
def test_unknown_field_anywhere_is_refused_by_its_path(sample: tuple[Any, Any], data: st.DataObject) -> None:
    type_, value = sample
    plain = to_plain(value)
    free = {"env", "labels", "annotations", "sysctls", "said", "links", "driver_opts"}
    objects = [p for p in places(plain) if isinstance(_at(plain, p), dict) and not (p and p[-1] in free)]
    place = data.draw(st.sampled_from(objects))
    body = json.dumps(changed(plain, place, {**_at(plain, place), "bogus": 1})).encode()
    with pytest.raises(InvalidInput) as refusal:
        decode_strict(body, type_)
    assert any(p.path.endswith("bogus") and p.message == "unknown field" for p in refusal.value.problems)


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 10**20, 1e20])
def test_number_too_large_is_refused_by_its_path(number: float) -> None:
    body = json.dumps(
        changed(to_plain(CreateInstance(spec=CONTAINER)), ("spec", "ports", 0, "target"), number)
    )
    with pytest.raises(InvalidInput) as refusal:
        decode_strict(body, CreateInstance)
    assert [p.path for p in refusal.value.problems] == ["spec.ports[0].target"]


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


@pytest.mark.parametrize("type_", BODIES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("body", [b"null", b"1", b'"x"', b"[]", b"[" * 100_000, b'{"":1}', b"\x00", b"{}{}"])
def test_what_is_no_object_of_the_type_is_refused(type_: Any, body: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode_strict(body, type_)
