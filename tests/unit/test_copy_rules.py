"""What becomes of a source, by what stands at the target."""

from __future__ import annotations

import pytest

from image.build.copyplan import Standing, place, replace, wants_folder
from model.errors import InvalidInput

TABLE: list[tuple[bool, str, Standing, str]] = [
    # the source is a directory, target, what stands there, what becomes of it
    (True, "/x", "nothing", "merge"),
    (True, "/x/", "nothing", "merge"),
    (True, "/x", "dir", "merge"),
    (True, "/x", "other", "refused"),
    (False, "/x", "nothing", "as"),
    (False, "/x", "other", "as"),
    (False, "/x", "dir", "inside"),
    (False, "/x/", "dir", "inside"),
    (False, "/x/.", "dir", "inside"),
    (False, "/x/", "other", "refused"),
]


@pytest.mark.parametrize(("folder", "target", "standing", "expected"), TABLE)
def test_source_goes_where_docker_puts_it(
    folder: bool, target: str, standing: Standing, expected: str
) -> None:
    try:
        found: str = place("a", folder=folder, target=target, standing=standing)
    except InvalidInput:
        found = "refused"
    assert found == expected


@pytest.mark.parametrize(
    ("folder", "standing", "expected"),
    [
        (False, "nothing", False),
        (False, "other", True),
        (True, "nothing", False),
        (True, "dir", False),
        (False, "dir", None),
        (True, "other", None),
    ],
)
def test_entry_replaces_what_is_of_its_kind_alone(
    folder: bool, standing: Standing, expected: bool | None
) -> None:
    if expected is None:
        with pytest.raises(InvalidInput, match="/x in the stage is"):
            replace("/x", folder=folder, standing=standing)
    else:
        assert replace("/x", folder=folder, standing=standing) is expected


@pytest.mark.parametrize(
    ("target", "wanted"), [("/", True), ("/a/", True), ("/a/.", True), ("/a", False), ("/a.", False)]
)
def test_slash_at_the_end_asks_for_a_directory(target: str, wanted: bool) -> None:
    assert wants_folder(target) is wanted


def test_several_sources_do_not_become_one_file() -> None:
    assert place("a", folder=False, target="/x", standing="dir", several=True) == "inside"
    assert place("a", folder=True, target="/x", standing="nothing", several=True) == "merge"
    standings: tuple[Standing, ...] = ("nothing", "other")
    for standing in standings:
        with pytest.raises(InvalidInput, match="End it with a slash: /x/"):
            place("a", folder=False, target="/x", standing=standing, several=True)
