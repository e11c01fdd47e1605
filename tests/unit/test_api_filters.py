"""Filters of lists and strict queries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from api.filters import (
    filter_instances,
    filter_networks,
    filter_volumes,
    image_fits,
    label_fits,
    parse_filters,
)
from api.imagefilters import filter_images
from api.routes import query as q
from api.routes.query import parse_query
from api.routes.table import CONTROLLER
from model.api import InstanceInfo
from model.errors import InvalidInput
from model.ids import HostId, InstanceId
from model.records import Desired, Instance
from model.spec import ContainerSpec
from model.status import BoundPort, InstanceStatus, Phase


def info(name: str, phase: Phase, desired: Desired = Desired.RUNNING, **status: Any) -> InstanceInfo:
    ident = InstanceId(name.encode().hex().ljust(64, "0"))
    spec = ContainerSpec(image="docker.io/library/busybox:1", labels={"tier": name})
    instance = Instance(id=ident, name=name, spec=spec, desired=desired, host=HostId("h" * 64))
    return InstanceInfo(
        instance=instance, status=InstanceStatus(instance=ident, phase=phase, **status), host_name="n1"
    )


FLEET = (
    info("web", Phase.RUNNING, ports=(BoundPort(target=80, published=8080, protocol="tcp"),)),
    info("frozen", Phase.RUNNING, paused=True, health="healthy"),
    info("coming", Phase.PULLING),
    info("again", Phase.RESTARTING),
    info("ended", Phase.EXITED, Desired.STOPPED, exit_code=3),
    info("broken", Phase.FAILED),
    info("new", Phase.CREATED, Desired.CREATED),
    info("going", Phase.STOPPING, Desired.STOPPED),
)


def names(*texts: str, all_: bool = False, limit: int = 0) -> list[str]:
    return [i.instance.name for i in filter_instances(FLEET, texts, all_=all_, limit=limit)]


def test_list_shows_what_runs_and_what_is_on_its_way() -> None:
    assert names() == ["web", "frozen", "coming", "again", "going"]
    assert names(all_=True) == [i.instance.name for i in FLEET]
    assert names(limit=2) == ["web", "frozen"]


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (("status=exited",), ["ended"]),
        (("status=exited", "status=running"), ["web", "ended"]),
        (("status=paused",), ["frozen"]),
        (("health=healthy",), ["frozen"]),
        (("health=none",), ["web", "coming", "again", "going"]),
        (("health=unhealthy",), []),
        (("status=dead",), ["broken"]),
        (("exited=3",), ["ended"]),
        (("exited=0",), []),
        (("name=o",), ["frozen", "coming", "going"]),
        (("label=tier=web",), ["web"]),
        (("label=tier", "name=we"), ["web"]),
        (("publish=8080",), ["web"]),
        (("publish=8080/udp",), []),
        (("ancestor=busybox", "name=web"), ["web"]),
        (("ancestor=busybox:2",), []),
        (("node=n1", "name=web"), ["web"]),
        (("node=n2",), []),
    ],
)
def test_filters_of_containers(texts: tuple[str, ...], found: list[str]) -> None:
    assert names(*texts) == found


@pytest.mark.parametrize("text", ["", "junk", "colour=red", "=x"])
def test_filter_that_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="filter"):
        parse_filters((text,), ("name",))


@pytest.mark.parametrize(
    ("image", "wish", "fits"),
    [
        ("docker.io/library/busybox:1", "busybox", True),
        ("docker.io/library/busybox:1", "busybox:1", True),
        ("docker.io/library/busybox:1", "busybox:2", False),
        ("docker.io/library/mybusybox:1", "busybox", False),
        ("localhost:5000/a/b:1", "a/b", True),
        ("localhost:5000/a/b", "b", True),
        ("a@sha256:00", "a", True),
        ("a:1@sha256:00", "a", True),
    ],
)
def test_image_is_found_by_the_end_of_its_name(image: str, wish: str, fits: bool) -> None:
    assert image_fits(image, wish) is fits


def test_dangling_that_is_neither_true_nor_false_is_refused_also_where_nothing_is_listed() -> None:
    for filtered in (filter_images, filter_networks, filter_volumes):
        assert filtered((), ("dangling=T",)) == []
        with pytest.raises(InvalidInput, match="dangling"):
            filtered((), ("dangling=yes",))


def test_label_is_found_by_key_or_by_value() -> None:
    assert label_fits({"a": ""}, "a") and label_fits({"a": ""}, "a=")
    assert not label_fits({"a": "b"}, "a=") and not label_fits({}, "a")


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("true", True), ("True", True), ("0", False), ("false", False)]
)
def test_truth_is_written_in_dockers_ways(text: str, value: bool) -> None:
    assert parse_query(MultiDict({"all": text}), q.ListInstances) == q.ListInstances(all=value)


def test_every_problem_of_a_query_is_named() -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_query(MultiDict([("al", "1"), ("limit", "-5"), ("all", "1"), ("all", "1")]), q.ListInstances)
    assert {p.path for p in refusal.value.problems} == {"al", "limit", "all"}


@given(st.sampled_from([r.query for r in CONTROLLER]), st.data())
def test_any_query_is_a_value_or_a_refusal(type_: Any, data: st.DataObject) -> None:
    keys = st.one_of(st.sampled_from([*type_.__struct_fields__, "x"]), st.text(max_size=5))
    values = st.one_of(
        st.sampled_from(["", "1", "true", "-1", "nan", "inf", "1e400", "9" * 30]), st.text(max_size=9)
    )
    pairs = data.draw(st.lists(st.tuples(keys, values), max_size=6))
    try:
        assert isinstance(parse_query(MultiDict(pairs), type_), type_)
    except InvalidInput as error:
        assert error.problems
