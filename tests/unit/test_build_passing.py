"""Images of builds that give them away: how long they are there."""

from __future__ import annotations

from contextlib import AsyncExitStack
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


async def test_image_is_there_until_the_last_build_of_it_has_given_it_away(images: FakeImages) -> None:
    passing, one = Passing(images), ident(images, named=False)
    async with AsyncExitStack() as first:
        passing.hold(first, [one], stay=False)
        async with AsyncExitStack() as second:
            passing.hold(second, [one], stay=False)
        assert one in images.images
    assert one not in images.images


async def test_image_of_a_build_that_failed_to_give_it_away_is_gone(images: FakeImages) -> None:
    passing, one = Passing(images), ident(images, named=False)
    with pytest.raises(Unavailable):
        async with AsyncExitStack() as stack:
            passing.hold(stack, [one], stay=False)
            raise Unavailable("the client has gone")
    assert one not in images.images


async def test_image_that_is_to_stay_or_has_a_name_stays(images: FakeImages) -> None:
    passing = Passing(images)
    for one, stay in ((ident(images, named=False), True), (ident(images, named=True), False)):
        async with AsyncExitStack() as stack:
            passing.hold(stack, [one], stay=stay)
        assert one in images.images
