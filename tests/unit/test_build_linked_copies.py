"""COPY --link: what it stands on does not count, what stands on it goes by both."""

from __future__ import annotations

import pytest

from model.image import ImageRecord
from tests.support.builds import Lab

TEXT = "FROM base\nRUN {}\nCOPY --link src /dst\nRUN last\n"


@pytest.fixture
def it() -> Lab:
    made = Lab()
    made.runner.contents = {"src": "1"}
    return made


async def built(it: Lab, first: str, **wishes: object) -> tuple[ImageRecord, list[str]]:
    image = await it.image(TEXT.format(first), **wishes)
    return image, it.ran()


async def test_linked_copy_stays_cached_when_what_it_stands_on_changes(it: Lab) -> None:
    one, ran = await built(it, "one")
    assert ran == ["one", "copy src", "last"] and len(one.layers) == 4
    two, ran = await built(it, "two")
    assert ran == ["two", "last"]
    assert it.cached() == ["[3/4] COPY --link src /dst"]
    assert one.layers[2] == two.layers[2] and one.layers[1] != two.layers[1]


async def test_build_of_a_linked_copy_again_takes_all_from_the_cache(it: Lab) -> None:
    one, _ = await built(it, "one")
    await built(it, "two")
    again, ran = await built(it, "one")
    assert ran == [] and again.id == one.id


async def test_changed_file_of_a_linked_copy_makes_it_and_later_steps_miss(it: Lab) -> None:
    await built(it, "one")
    it.runner.contents["src"] = "2"
    it.session.roots[""] = "tree:2"
    assert (await built(it, "one"))[1] == ["copy src", "last"]


async def test_linked_copy_that_is_done_again_makes_nothing_miss(it: Lab) -> None:
    """Its files are a function of its key."""
    await built(it, "one")
    (key,) = (key for key, record in it.cache.records.items() if record.kind == "copy")
    del it.cache._records[key]
    assert (await built(it, "one"))[1] == ["copy src"]


async def test_linked_copies_of_two_stages_are_done_once(it: Lab) -> None:
    await it.build(
        "FROM base AS a\nRUN a\nCOPY --link src /dst\nFROM scratch\nCOPY --link src /dst\n"
        "COPY --from=a /x /x\n"
    )
    assert sorted(it.ran()) == ["a", "copy /x", "copy src"]


async def test_nothing_is_held_of_linked_copies_once_the_build_is_over(it: Lab) -> None:
    await built(it, "one")
    assert not it.snapshots.held and it.snapshots.open == 0
