"""What may stand in a script for nft, which is run as root: nothing that a value could add to it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from model.errors import CommandFailed
from net.nftscript import table_script
from net.state import Chain, ElementSet, NftTable, rule

INJECTED = "198.18.9.9 }\nadd rule inet flota forward accept\nadd table inet evil\n#"


@pytest.mark.parametrize(
    "text",
    [INJECTED, "", "a, b", "a; b", "a }", "a # b", '"a"', "$a", "@own", "a b", ":", "a .", " a", "a\n"],
)
def test_what_is_no_element_is_never_written_into_a_script(text: str) -> None:
    """Whatever a peer said of itself: no value becomes nft's language."""
    peers = ElementSet(type="ipv4_addr", elements={"192.0.2.1": "", text: ""})
    ports = ElementSet(type="inet_service", data="ipv4_addr", elements={"80": text or "a b c"})
    for found in (peers, ports):
        want = NftTable(sets={"peers4": found})
        have = NftTable(sets={"peers4": replace(found, elements={})})
        for before in (None, have):
            with pytest.raises(CommandFailed, match="is no element of its set peers4"):
                table_script("inet", want, before)


def test_names_and_rules_that_would_be_more_are_never_written() -> None:
    for name, table in (
        ("is no name", NftTable(sets={"a {": ElementSet(type="ifname")})),
        ("is no name", NftTable(chains={"a\n": Chain()})),
        ("is not one line", NftTable(chains={"a": Chain(rules=(rule("accept\n  drop", "why"),))})),
        ("is no comment", NftTable(chains={"a": Chain(rules=(rule("accept", 'why" drop #'),))})),
    ):
        with pytest.raises(CommandFailed, match=name):
            table_script("inet", table, None)


def test_strangers_element_that_cannot_be_named_goes_with_the_whole_table() -> None:
    want = NftTable(sets={"own": ElementSet(type="ifname", elements={"flb-1": ""})})
    have = NftTable(sets={"own": ElementSet(type="ifname", elements={"flb-1": "", 'a"} #': ""})})
    script, whole = table_script("inet", want, have)
    assert whole and "delete table inet flota" in script and "#" not in script


def test_elements_of_every_kind_are_written_as_they_are() -> None:
    sets = {
        "all": ElementSet(
            type="x",
            elements=dict.fromkeys(
                (
                    "192.0.2.1",
                    "10.1.0.0/16",
                    "10.1.0.5-10.1.0.9",
                    "::",
                    "::/0",
                    "fd00:1::9 . ipv6-icmp . 0-65535",
                    "flb-0a1b2c . flx-0a1b2c.1",
                    "02:00:00:00:00:01 . 192.0.2.1",
                    "4097",
                ),
                "",
            ),
        ),
        "map": ElementSet(
            type="x", data="y", elements={"tcp . 80": "10.1.0.2 . 8080", "flb-1": "jump in-0a", "x": "goto y"}
        ),
    }
    script, _ = table_script("inet", NftTable(sets=sets), None)
    assert "tcp . 80 : 10.1.0.2 . 8080" in script and "flb-0a1b2c . flx-0a1b2c.1" in script
