"""Images of builds that give them away: how long they are there."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.build.passing import Passing
from image.fake import FakeImages, record
from model.errors import Unavailable


@pytest.fixture
def images(tmp_path: Path) -> FakeImages:
    return FakeImages(tmp_path, [replace(record("a"), names=()), record("named")])


def ident(images: FakeImages, *, named: bool) -> str:
    return next(image.id for image in images.list() if bool(image.names) is named)


def come(images: FakeImages) -> str:
    """An image that a build made."""
    made = replace(record("built"), names=())
    images.images[made.id] = made
    return made.id


async def test_image_is_there_until_the_last_build_of_it_has_given_it_away(images: FakeImages) -> None:
    passing = Passing(images)
    async with passing.build(stay=False) as first:
        one = come(images)
        first([one])
        async with passing.build(stay=False) as second:
            second([one])
        assert one in images.images
    assert one not in images.images


async def test_image_of_a_build_that_failed_to_give_it_away_is_gone(images: FakeImages) -> None:
    passing, one = Passing(images), ""
    with pytest.raises(Unavailable):
        async with passing.build(stay=False) as made:
            made([one := come(images)])
            raise Unavailable("the client has gone")
    assert one not in images.images


async def test_image_that_is_to_stay_or_has_a_name_stays(images: FakeImages) -> None:
    passing = Passing(images)
    for one, stay in ((come(images), True), (ident(images, named=True), False)):
        async with passing.build(stay=stay) as made:
            made([one])
        assert one in images.images


async def test_image_that_was_here_before_stays_without_a_name(images: FakeImages) -> None:
    passing, one = Passing(images), ident(images, named=False)
    async with passing.build(stay=False) as made:
        made([one])
    assert one in images.images


@pytest.mark.parametrize("first", [True, False])
async def test_image_that_another_build_is_to_keep_meanwhile_stays(images: FakeImages, first: bool) -> None:
    passing = Passing(images)
    async with passing.build(stay=False) as given:
        one = come(images)
        given([one] if first else [])
        async with passing.build(stay=True) as kept:
            kept([one])
        given([] if first else [one])
    assert one in images.images
    async with passing.build(stay=False) as again:
        again([one])
    assert one in images.images


async def test_image_that_was_given_away_goes_again_when_it_is_built_again(images: FakeImages) -> None:
    passing = Passing(images)
    for _ in range(2):
        async with passing.build(stay=False) as made:
            one = come(images)
            made([one])
        assert one not in images.images
