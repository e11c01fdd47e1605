"""All that is to be here: what the fleet tells a host, and what was made on the host's own socket. Pure.

Invariant: a View stays what the controller told; this host's own containers are in none, so that no answer to
the controller (`wire.Recall`, the journal of Views) ever takes them for its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from model.ids import InstanceId
from model.records import Instance
from model.view import View

Own = Mapping[InstanceId, Instance]
"""By id, as they are to be. Values are replaced, the map with them."""


def wanted(view: View, own: Own) -> View:
    """The View with `own` among its instances. Of an id that both have, which no honest fleet brings about,
    the host's own holds: its journal is where that container's truth is."""
    return replace(view, instances={**view.instances, **own}) if own else view


def wishes(view: View, own: Own) -> Mapping[InstanceId, Instance]:
    """By id."""
    return wanted(view, own).instances


class Wanted:
    """Remembers its last answer: readers tell by the object whether anything is new."""

    def __init__(self) -> None:
        self._of: tuple[View, Own] | None = None
        self._made = View()

    def of(self, view: View, own: Own) -> View:
        known = self._of
        if known is None or known[0] is not view or known[1] is not own:
            self._of, self._made = (view, own), wanted(view, own)
        return self._made
