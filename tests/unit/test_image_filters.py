"""Filters of `images` and `search`."""

from __future__ import annotations

import pytest

from api.filters import filter_networks
from api.imagefilters import filter_found, filter_images, reference_fits
from model.api import FoundImage, ImageInfo, NetworkInfo
from model.errors import InvalidInput, NotFound
from model.ids import NetworkId
from model.image import ImageConfig, ImageRecord
from model.records import Network
from model.spec import NetworkSpec


def info(number: int, *names: str, **labels: str) -> ImageInfo:
    """Made at `number` seconds."""
    full = tuple(f"docker.io/library/{name}" for name in names)
    digits = f"{number:x}" * 64
    return ImageInfo(
        image=ImageRecord(
            id=f"sha256:{digits[:64]}",
            names=full,
            digests=(f"docker.io/library/x@sha256:{number:064}",),
            created=float(number),
            config=ImageConfig(labels=labels),
        )
    )


HERE = [
    info(1, "old:1", kind="base", team="a"),
    info(2, "mid:1", "mid:latest", kind="base"),
    info(3, kind="app"),
    info(4, "new:1"),
]


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (("before=mid:1",), {1}),
        (("before=mid",), {1}),
        (("since=mid",), {3, 4}),
        (("since=old:1", "before=new:1"), {2, 3}),
        (("since=old:1", "since=mid:1"), {3, 4}),
        (("before=" + "3" * 12,), {1, 2}),
        (("before=sha256:" + "3" * 12,), {1, 2}),
        ((f"since=docker.io/library/x@sha256:{3:064}",), {4}),
        (("until=3",), {1, 2}),
        (("until=3", "until=2"), {1}),
        (("label=kind",), {1, 2, 3}),
        (("label=kind=base", "label=team=a"), {1}),
        (("label!=kind",), {4}),
        (("label!=kind=base", "label!=kind=app"), {4}),
        (("dangling=true",), {3}),
        (("dangling=false", "label=kind=base"), {1, 2}),
        (("reference=mid",), {2}),
        (("reference=m*",), {2}),
        (("reference=*:1",), {1, 2, 4}),
        (("reference=old:1", "reference=new:*"), {1, 4}),
    ],
)
def test_images_are_chosen_as_docker_does(filters: tuple[str, ...], kept: set[int]) -> None:
    assert {int(i.image.created) for i in filter_images(HERE, filters)} == kept


def test_image_found_by_reference_shows_the_names_that_fit() -> None:
    (found,) = filter_images(HERE, ("reference=mid:1",))
    assert found.image.names == ("docker.io/library/mid:1",)


@pytest.mark.parametrize("wish", ["before=nothing", "since=", "before=ffff"])
def test_time_of_an_image_that_is_not_here_is_refused(wish: str) -> None:
    with pytest.raises(NotFound, match="no such image"):
        filter_images(HERE, (wish,))


def test_time_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="until=soon"):
        filter_images(HERE, ("until=soon",))


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("ghcr.io/a/web:1", "ghcr.io/*/web", True),
        ("ghcr.io/a/web:1", "ghcr.io/*", False),
        ("ghcr.io/a/web:1", "*", False),
        ("docker.io/library/busybox:1", "busy*", True),
        ("docker.io/library/busybox:uclibc", "busybox:*libc", True),
        ("docker.io/library/busybox:1", "busybox:*libc", False),
    ],
)
def test_pattern_of_a_reference_stops_at_slashes(name: str, pattern: str, fits: bool) -> None:
    assert reference_fits(name, pattern) is fits


def test_labels_must_all_hold_in_every_list() -> None:
    network = Network(id=NetworkId("n"), spec=NetworkSpec(name="n", labels={"a": "1"}))
    networks = [NetworkInfo(network=network)]
    assert filter_networks(networks, ("label=a",)) == networks
    assert filter_networks(networks, ("label=a", "label=b")) == []


FOUND = [FoundImage(name="a", stars=10, official=True), FoundImage(name="b", stars=3)]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (("stars=3",), "ab"),
        (("stars=4",), "a"),
        (("is-official=true",), "a"),
        (("is-official=0",), "b"),
        (("is-automated=true",), ""),
        ((), "ab"),
    ],
)
def test_search_is_narrowed_as_docker_does(filters: tuple[str, ...], names: str) -> None:
    assert "".join(f.name for f in filter_found(FOUND, filters)) == names


@pytest.mark.parametrize("wish", ["stars=many", "stars=-1", "is-official=yes", "likes=3"])
def test_search_filter_that_means_nothing_is_refused(wish: str) -> None:
    with pytest.raises(InvalidInput):
        filter_found((), (wish,))
