"""All that is to be on a host: the View, and containers of the host's own."""

from __future__ import annotations

from agent.wanted import Wanted, wanted, wishes
from model.ids import InstanceId
from model.records import Instance
from model.spec import ContainerSpec
from model.view import View


def _box(number: int, name: str = "") -> Instance:
    ident = InstanceId(f"{number:064x}")
    return Instance(id=ident, name=name or f"box{number}", spec=ContainerSpec(image="app:1"))


def _view(*boxes: Instance) -> View:
    return View(revision=7, fleet_id="f", instances={box.id: box for box in boxes})


def test_wanted_of_both_has_both_and_leaves_the_view_as_it_was() -> None:
    told, mine = _box(1), _box(2)
    view = _view(told)
    assert wishes(view, {mine.id: mine}) == {told.id: told, mine.id: mine}
    assert wanted(view, {mine.id: mine}).revision == 7
    assert view.instances == {told.id: told}


def test_wanted_without_own_containers_is_the_view_itself() -> None:
    view = _view(_box(1))
    assert wanted(view, {}) is view


def test_wanted_of_an_id_that_both_have_is_the_hosts_own() -> None:
    told, mine = _box(1, "theirs"), _box(1, "mine")
    assert wishes(_view(told), {mine.id: mine})[mine.id].name == "mine"


def test_wanted_is_one_object_until_either_is_another() -> None:
    known, view, own = Wanted(), _view(_box(1)), {_box(2).id: _box(2)}
    first = known.of(view, own)
    assert known.of(view, own) is first
    assert known.of(view, dict(own)) is not first
