"""A network's names over changes of its members: always those that the last members make at once."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from model.directory import Member
from model.ids import InstanceId
from net import names
from net.resolver.change import change_zone
from net.resolver.state import Zone
from net.zonenames import Vips, ZoneNames
from tests.support.names import BACK, HOST, NETWORKS, instance, plain, replica

NAMES = ("a", "web", "Web.1", "tasks.web", "web.1.x", "n" * 64, "")
SERVICES = ("", "", "web", "Db", "tasks.web", "s" * 60)
VIPS = ("web", "db", "tasks.web", "new")
MEMBERS = st.builds(
    Member,
    name=st.sampled_from(NAMES),
    host=st.just(HOST),
    service_name=st.sampled_from(SERVICES),
    slot=st.integers(0, 2),
    aliases=st.lists(st.sampled_from((*NAMES, "db", "C", "bad..")), max_size=3, unique=True).map(tuple),
    ipv4=st.sampled_from(["", "10.1.0.1", "10.1.0.2"]),
    ipv6=st.sampled_from(["", "fd00::1", "fd00::0002"]),
    ready=st.booleans(),
)
CHANGES = st.dictionaries(st.integers(0, 5).map(instance), st.none() | MEMBERS, max_size=4)
ADDRESSED = st.dictionaries(st.sampled_from(VIPS), st.integers(0, 1), max_size=3).map(
    lambda chosen: {s: (f"10.9.{n}.{VIPS.index(s)}", "") for s, n in chosen.items()}
)


@given(st.lists(st.tuples(CHANGES, ADDRESSED), max_size=8))
def test_changed_names_are_those_made_at_once(
    steps: list[tuple[Mapping[InstanceId, Member | None], Vips]],
) -> None:
    kept, members = ZoneNames(NETWORKS[BACK]), dict[InstanceId, Member]()
    for changes, vips in steps:
        for ident, member in changes.items():
            members.pop(ident, None)
            if member is not None:
                members[ident] = member
        before = kept.zone
        change = kept.change(changes, vips)
        zone = kept.zone
        assert zone == names.zone(NETWORKS[BACK], members, vips) == change_zone(change, before)
        kept.change(changes, vips)
        assert kept.zone is zone, "told again, nothing changes"


def test_one_change_among_many_leaves_the_others_values_alone() -> None:
    many = {instance(n): plain(f"c{n}", f"10.1.1.{n}", aliases=f"x{n}") for n in range(200)}
    kept = ZoneNames(NETWORKS[BACK])
    kept.change({**many, instance(999): replica(1)})
    before = kept.zone
    change = kept.change({instance(999): replica(1, ready=False)})
    assert change.names == {"web": (), "tasks.web": ()} and change.tasks == {"web": ()}
    assert kept.zone.reverse is before.reverse and kept.zone.names["c7"] is before.names["c7"]


def test_name_goes_to_the_next_in_precedence_and_comes_back() -> None:
    kept = ZoneNames(NETWORKS[BACK])

    def changed(members: Mapping[InstanceId, Member | None], vips: Vips | None = None) -> Zone:
        kept.change(members, vips)
        return kept.zone

    alias, owner = plain("a", "10.1.0.1", aliases="web"), plain("web", "10.1.0.9")
    assert changed({instance(1): alias}).names["web"] == ("10.1.0.1",)
    assert changed({instance(2): replica(2)}).names["web"] == ("10.1.0.2",)
    assert changed({}, {"web": ("10.9.0.1", "")}).names["web"] == ("10.9.0.1",)
    assert changed({instance(3): owner}, {"web": ("10.9.0.1", "")}).names["web"] == ("10.1.0.9",)
    left = changed({instance(2): None, instance(3): None})
    assert left.names["web"] == ("10.1.0.1",) and "tasks.web" not in left.names and not left.tasks
    empty = changed({instance(1): None})
    assert not empty.names and not empty.reverse
