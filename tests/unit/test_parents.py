"""Which link of a host a network on the site's own stands on."""

from __future__ import annotations

import pytest

from model.parents import Parent, is_parent, parent_of, tagged
from model.status import HostFacts, Nic

NICS = (Nic(name="eno1"), Nic(name="eno2", up=False), Nic(name="eth0"), Nic(name="eth1", up=False))
FACTS = HostFacts(
    hostname="h", address="192.0.2.1", nics=NICS, link_kinds=("macvlan", "vlan")
)  # a kernel without ipvlan
LABELS = {"lan": "eth0", "bad": "no link", "office": "eth0.20"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("eth0", Parent(name="eth0")),
        ("eth1", Parent(refusal="whose link eth1 is down")),
        ("eth7", Parent(refusal="without link eth7")),
        ("en*", Parent(name="eno1")),
        ("eno2*", Parent(refusal="whose link eno2 is down")),
        ("wl*", Parent(refusal="without link wl*")),
        ("label:lan", Parent(name="eth0")),
        ("label:office", Parent(name="eth0.20")),
        ("label:none", Parent(refusal="without a label none that names a link")),
        ("label:bad", Parent(refusal="without a label bad that names a link")),
        ("eth0.20", Parent(name="eth0.20")),
        ("en*.20", Parent(name="eno1.20")),
        ("eth1.20", Parent(refusal="whose link eth1 is down")),
        ("eth7.20", Parent(refusal="without link eth7.20")),
        ("eth0.4095", Parent(refusal="without link eth0.4095")),
    ],
)
def test_parent_is_the_link_that_the_option_means(text: str, found: Parent) -> None:
    assert parent_of("macvlan", text, FACTS, LABELS) == found


def test_parent_that_the_kernel_can_not_use_is_refused_with_what_it_lacks() -> None:
    assert parent_of("ipvlan", "eth0", FACTS, {}) == Parent(refusal="without ipvlan in the kernel")
    bare = HostFacts(hostname="h", address="192.0.2.1", nics=NICS, link_kinds=("macvlan",))
    assert "802.1Q" in parent_of("macvlan", "eth0.20", bare, {}).refusal
    there = HostFacts(hostname="h", address="", nics=(Nic(name="eth0.20"),), link_kinds=("macvlan",))
    assert parent_of("macvlan", "eth0.20", there, {}) == Parent(name="eth0.20"), "somebody made it"


def test_parent_names_are_links_patterns_and_labels() -> None:
    assert all(is_parent(text) for text in ("eth0", "bond0.4094", "en[op]*", "label:node.lan"))
    assert not any(is_parent(text) for text in ("", "lo", "a b", "a/b", ".", "label:", "label:a b", "x" * 40))


def test_vlan_is_a_number_after_the_last_dot() -> None:
    assert tagged("eth0.20") == ("eth0", 20) and tagged("a.b.7") == ("a.b", 7)
    assert [tagged(t)[1] for t in ("eth0", "eth0.", "eth0.0", "eth0.4095", ".20", "eth0.x")] == [0] * 6
