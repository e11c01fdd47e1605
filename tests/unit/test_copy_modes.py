"""`--chmod` of COPY: octal and symbolic modes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.build import chmod
from model.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "file", "expected"),
    [
        ("644", 0o755, 0o644),
        ("0", 0o755, 0),
        ("0007", 0o755, 7),
        ("4755", 0o644, 0o4755),
        ("07777", 0, 0o7777),
        ("+x", 0o644, 0o755),
        ("a+x", 0o600, 0o711),
        ("go-w", 0o666, 0o644),
        ("u=rwX,go=rX", 0o600, 0o644),
        ("u=rwX,go=rX", 0o700, 0o755),
        ("a+X", 0o644, 0o644),
        ("a+X", 0o744, 0o755),
        ("g=u", 0o640, 0o660),
        ("o=g-w", 0o664, 0o664),
        ("u+s,g+s", 0o755, 0o6755),
        ("+t", 0o755, 0o1755),
        ("o+t", 0o755, 0o755),
        ("u=rw,g=r,o=", 0o777, 0o640),
        ("=", 0o755, 0),
        ("u=rw,go=", 0o4755, 0o600),
        ("-x", 0o755, 0o644),
        ("u+r-w", 0o200, 0o400),
        ("go=u", 0o750, 0o777),
    ],
)
def test_mode_of_a_file_is_what_chmod_makes_of_it(text: str, file: int, expected: int) -> None:
    assert oct(chmod.parse(text)(file, False)) == oct(expected)


def test_capital_x_of_a_directory_is_x() -> None:
    assert chmod.parse("u=rwX,go=rX")(0o600, True) == 0o755


@pytest.mark.parametrize(
    "text",
    ["64a", "10000", "99999", "-1", "8", "0o644", "rwx", "u", "u+", "z+x", "u=rw;", "u=rw,", ",u=r",
     "u=rg", "²", "+x\n", "x" * 300, "u+rwx," * 90],
)  # fmt: skip
def test_mode_that_can_not_be_is_refused(text: str) -> None:
    """B12."""
    if text == "u+":  # changes nothing, as chmod(1) has it
        assert chmod.parse(text)(0o644, False) == 0o644
        return
    with pytest.raises(InvalidInput) as caught:
        chmod.parse(text)
    assert "\n" not in str(caught.value) or text.endswith("\n")


@given(st.text("ugoa+-=rwxXst,0123456789", max_size=40), st.integers(0, 0o7777), st.booleans())
def test_any_mode_is_refused_or_stays_a_mode(text: str, mode: int, folder: bool) -> None:
    try:
        change = chmod.parse(text)
    except InvalidInput:
        return
    assert 0 <= change(mode, folder) <= 0o7777
