"""HOST:PORT in all its forms."""

from __future__ import annotations

import pytest

from model.errors import InvalidInput
from model.whereabouts import joined, parted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("192.0.2.1", ("192.0.2.1", 7420)),
        ("192.0.2.1:99", ("192.0.2.1", 99)),
        ("n1.example", ("n1.example", 7420)),
        ("n1:99", ("n1", 99)),
        ("fd00::1", ("fd00::1", 7420)),
        ("[fd00::1]", ("fd00::1", 7420)),
        ("[fd00::1]:99", ("fd00::1", 99)),
        ("fd00::1:99", ("fd00::1:99", 7420)),
    ],
)
def test_forms(text: str, wanted: tuple[str, int]) -> None:
    assert parted(text, 7420) == wanted
    assert parted(joined(*wanted), 7420) == wanted


@pytest.mark.parametrize(
    "text",
    ["", ":99", "n1:", "n1:0", "n1:70000", "n1:x", "[fd00::1", "[n1]:9", "[fd00::1]9", "[fe80::1%2]:9"],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="no HOST:PORT"):
        parted(text, 7420)
