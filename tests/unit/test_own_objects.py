"""The table of deletions knows every kind of object that we make."""

from __future__ import annotations

from typing import get_args

from net.diff import Item
from tests.support.ownobjects import KINDS, NOT_OBJECTS


def test_every_kind_of_object_that_a_plan_can_make_is_found_by_its_mark() -> None:
    assert set(get_args(Item)) == KINDS.keys() | NOT_OBJECTS.keys()
