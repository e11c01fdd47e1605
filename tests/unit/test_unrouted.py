"""Links between which a host did not route before: what of it becomes a rule."""

from __future__ import annotations

from model.ids import NetworkId
from model.spec import NetworkSpec, Subnet
from model.view import NetworkView
from net import unroutedrules
from net.backend.base import Member, Traits

LAN = NetworkView(
    id=NetworkId("a" * 64),
    spec=NetworkSpec(name="lan", driver="nic", subnets=(Subnet(cidr="192.0.2.0/24"),)),
    vni=0,
    blocks=(),
    parent="eth1",
)
ON_ETH1 = Member(
    view=LAN, traits=Traits(mtu=1500, onlink=True, inner=(), own_ranges=(), here=(), bridge="fln0")
)


def test_links_are_closed_to_each_other_and_none_to_itself() -> None:
    (found,) = unroutedrules.forwarding({"4": ("eth0", "eth1")}, ())
    assert found.text == (
        'meta nfproto ipv4 ct state new iifname { "eth0", "eth1" } oifname { "eth0", "eth1" }'
        ' iifname . oifname != { "eth0" . "eth0", "eth1" . "eth1" } counter drop'
    )


def test_rule_for_many_links_grows_as_they_do() -> None:
    few, many = (
        unroutedrules.forwarding({"4": tuple(f"eth{i}" for i in range(n))}, ())[0].text for n in (100, 200)
    )
    assert len(many) < 2.2 * len(few)


def test_host_with_one_link_or_one_that_routed_has_no_rule() -> None:
    assert unroutedrules.forwarding({"4": ("eth0",), "6": ()}, ()) == ()
    assert unroutedrules.forwarding({}, (ON_ETH1,)) == ()


def test_bridge_that_took_a_links_place_is_closed_like_it() -> None:
    (found,) = unroutedrules.forwarding({"6": ("eth0", "eth1")}, (ON_ETH1,))
    assert found.text.startswith("meta nfproto ipv6") and 'oifname { "eth0", "eth1", "fln0" }' in found.text
    (other,) = unroutedrules.forwarding({"6": ("eth0", "eth2")}, (ON_ETH1,))
    assert "fln0" not in other.text


def test_name_that_would_be_nfts_language_is_left_out() -> None:
    (found,) = unroutedrules.forwarding({"4": ('a" drop', "vlan", "eth0")}, ())
    assert "drop }" not in found.text and found.text.count('"') == 16
