"""Directories of networks and their differences."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model.directory import Directory, DirectoryDelta, Member, apply, diff, legible, narrowed
from model.ids import HostId, InstanceId, NetworkId

MEMBERS = st.builds(Member, name=st.sampled_from(["a", "b"]), host=st.just(HostId("h")), ready=st.booleans())
DIRECTORIES = st.builds(
    Directory,
    networks=st.dictionaries(
        st.sampled_from([NetworkId("n1"), NetworkId("n2")]),
        st.dictionaries(st.sampled_from([InstanceId(i) for i in "abc"]), MEMBERS, min_size=1),
    ),
)


@given(DIRECTORIES, DIRECTORIES)
def test_a_difference_applied_gives_the_other(one: Directory, other: Directory) -> None:
    assert apply(diff(one, other), one) == other


@given(DIRECTORIES)
def test_equal_directories_differ_in_nothing(one: Directory) -> None:
    assert diff(one, one) == DirectoryDelta() and diff(one, one).empty


@given(DIRECTORIES, DIRECTORIES, DIRECTORIES)
def test_a_delta_narrowed_is_the_difference_that_it_makes(
    here: Directory, one: Directory, other: Directory
) -> None:
    delta = diff(one, other)
    assert narrowed(delta, here) == diff(here, apply(delta, here))


def test_what_is_no_address_is_not_taken_from_a_delta() -> None:
    one, good = NetworkId("n1"), Member(name="a", host=HostId("h"), ipv4="10.1.0.2", ipv6="fd00::2")
    left = {one: (InstanceId("c"),)}
    for four, six in (("0.0.0.0/0", "oops"), ("10.1.0.2%1", "10.1.0.2"), ("fd00::2", "::/0")):
        bad = Member(name="b", host=HostId("h"), ipv4=four, ipv6=six)
        delta = DirectoryDelta(put={one: {InstanceId("a"): good, InstanceId("b"): bad}}, gone=left)
        found = legible(delta)
        assert found.put[one] == {
            InstanceId("a"): good,
            InstanceId("b"): Member(name="b", host=HostId("h")),
        }
        assert found.gone == left
