"""`--chown` of COPY and the user of a WORKDIR: names and numbers."""

from __future__ import annotations

import pytest

from image.build.chown import MAX_ID, Owner, owner, parse
from model.errors import InvalidInput, NotFound

FILES = {
    "/etc/passwd": b"root:x:0:0:root:/:/bin/sh\napp:x:1000:1001::/home/app:\n7:x:70:71::/:\n"
    b"broken:x::\nhuge:x:99999999999:0::/:\nminus:x:-1:-1::/:\n  spaced:x:5:6::/:\n",
    "/etc/group": b"wheel:x:10:\napp:x:1001:\nbroken:x\n",
}


def read(path: str) -> bytes:
    return FILES.get(path, b"")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (0, 0)),
        ("55", (55, 55)),
        ("10:11", (10, 11)),
        ("root", (0, 0)),
        ("root:root", (0, 0)),
        ("app", (1000, 1001)),
        ("app:wheel", (1000, 10)),
        ("55:wheel", (55, 10)),
        ("app:0", (1000, 0)),
        ("7", (7, 7)),
        (":10", (0, 10)),
        ("app:", (1000, 1001)),
        ("4294967294", (MAX_ID, MAX_ID)),
        ("spaced", (5, 6)),
    ],
)
def test_owner_is_found_by_number_or_by_the_root_s_files(text: str, expected: tuple[int, int]) -> None:
    assert owner(parse(text), read) == Owner(*expected)


@pytest.mark.parametrize(
    "text",
    ["4294967295", "4294967296", "99999999999", "9" * 5000, "-1", "+1", "1:-1", "a:b:c", "1:2:3", "app\n",
     "a b", "\0", "x" * 300, "1:4294967295"],
)  # fmt: skip
def test_owner_that_can_not_be_is_refused_in_one_line(text: str) -> None:
    """B12."""
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["nobody", "1:staff", "app:staff", "²"])
def test_owner_that_the_root_does_not_know_is_an_error(text: str) -> None:
    with pytest.raises(NotFound, match="of this stage"):
        owner(parse(text), read)


@pytest.mark.parametrize("text", ["broken", "huge", "minus", "1:broken"])
def test_owner_whose_line_makes_no_sense_is_an_error(text: str) -> None:
    with pytest.raises(InvalidInput):
        owner(parse(text), read)


def test_owner_by_number_asks_no_file() -> None:
    def never(path: str) -> bytes:
        raise AssertionError(path)

    assert owner(parse("5:6"), never) == Owner(5, 6)
    assert not parse("5:6").named and parse("5:app").named


def test_owner_by_name_without_files_says_what_to_do() -> None:
    with pytest.raises(NotFound, match="use numbers"):
        owner(parse("app"), lambda _: b"")
