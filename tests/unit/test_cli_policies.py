"""What people write of policies, and what is wrong with it."""

from __future__ import annotations

import pytest

from cli.parse.policies import from_file, port, rule, rules, selector
from model.errors import InvalidInput
from model.policy import PolicyPeer, PolicyPort, PolicyRule, PolicySpec, Selector
from model.policyrules import validate_policy
from model.policywords import direction_words, selector_words


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (("all",), Selector()),
        (("service=web",), Selector(service="web")),
        (("service=web,network=back",), Selector(service="web", network="back")),
        (
            ("container=db", "label=tier=data", "label=x"),
            Selector(container="db", labels={"tier": "data", "x": ""}),
        ),
    ],
)
def test_selector_of_words_is_all_of_them(texts: tuple[str, ...], found: Selector) -> None:
    assert selector(texts) == found


@pytest.mark.parametrize("text", ["web", "service=", "image=x", "service=a,service=b", "all,service=a"])
def test_selector_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        selector((text,))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("allow", PolicyRule()),
        ("allow,port=53/udp", PolicyRule(ports=(PolicyPort(port=53, protocol="udp"),))),
        ("allow=any,port=icmp", PolicyRule(ports=(PolicyPort(protocol="icmp"),))),
        (
            "allow=service:api,allow=label:tier=front,port=80/tcp,port=8000-8010",
            PolicyRule(
                peers=(PolicyPeer(service="api"), PolicyPeer(labels={"tier": "front"})),
                ports=(PolicyPort(port=80), PolicyPort(port=8000, to=8010)),
            ),
        ),
        (
            "allow=cidr:10.0.0.0/8,except=10.1.0.0/16",
            PolicyRule(peers=(PolicyPeer(cidr="10.0.0.0/8", without=("10.1.0.0/16",)),)),
        ),
        ("allow=cidr:fd00::/8", PolicyRule(peers=(PolicyPeer(cidr="fd00::/8"),))),
        ("allow=outside", PolicyRule(peers=(PolicyPeer(outside=True),))),
        ("allow=network:back", PolicyRule(peers=(PolicyPeer(network="back"),))),
        ("allow=container:db", PolicyRule(peers=(PolicyPeer(container="db"),))),
    ],
)
def test_rule_of_words_is_peers_and_ports(text: str, found: PolicyRule) -> None:
    assert rule(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "port=80", "allow=", "allow=web", "allow=service:", "allow,port=x", "allow,port=80/ftp",
     "allow,port=-9", "except=10.0.0.0/8", "allow=service:a,except=10.0.0.0/8", "allow,ports=80"],
)  # fmt: skip
def test_rule_that_makes_no_sense_is_refused_with_how_to_write_it(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        rule(text)
    assert caught.value.hint


def test_rules_deny_is_alone() -> None:
    assert rules(("deny",)) == ()
    with pytest.raises(InvalidInput, match="deny excludes"):
        rules(("deny", "allow"))


def test_port_of_a_protocol_alone_is_all_of_its_ports() -> None:
    assert port("udp") == PolicyPort(protocol="udp")


JSON = '{"name": "p", "selects": {"service": "web"}, "ingress": [{"peers": [{"service": "api"}]}]}'
TOML = 'name = "p"\nselects = {service = "web"}\n[[ingress]]\npeers = [{service = "api"}]\n'


YAML = "name: p\nselects:\n  service: web\ningress:\n- peers:\n  - service: api\n"


@pytest.mark.parametrize("text", [JSON, TOML, YAML])
def test_file_in_json_toml_or_yaml_is_a_policy(text: str) -> None:
    spec = from_file("f", text)
    assert spec == PolicySpec(
        name="p",
        selects=Selector(service="web"),
        ingress=(PolicyRule(peers=(PolicyPeer(service="api"),)),),
    )


@pytest.mark.parametrize(
    "text", ["{", "name", "- a", "name: p\nname: q", '{"name": "p", "ingres": []}', '{"name": 7}']
)
def test_file_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        from_file("f", text)


def test_validate_policy_tells_all_that_is_wrong_at_once() -> None:
    spec = PolicySpec(
        name="-",
        selects=Selector(service="A b"),
        ingress=(
            PolicyRule(
                peers=(
                    PolicyPeer(),
                    PolicyPeer(cidr="10.1.2.3/8"),
                    PolicyPeer(cidr="10.0.0.0/8", without=("192.168.0.0/16",)),
                    PolicyPeer(service="a", outside=True),
                ),
                ports=(PolicyPort(port=70000), PolicyPort(port=9, to=8), PolicyPort(port=1, protocol="icmp")),
            ),
        ),
    )
    paths = [problem.path for problem in validate_policy(spec)]
    assert paths == [
        "spec.name",
        "spec.selects.service",
        "spec.ingress[0].peers[0]",
        "spec.ingress[0].peers[1].cidr",
        "spec.ingress[0].peers[2].without[0]",
        "spec.ingress[0].peers[3]",
        "spec.ingress[0].ports[0].port",
        "spec.ingress[0].ports[1].to",
        "spec.ingress[0].ports[2]",
    ]
    assert [p.path for p in validate_policy(PolicySpec(name="none"))] == ["spec"]


def test_words_of_a_policy_are_those_that_made_it() -> None:
    spec = PolicySpec(
        name="p",
        selects=Selector(service="web", labels={"a": "b"}),
        ingress=(
            rule("allow=service:api,allow=cidr:10.0.0.0/8,except=10.1.0.0/16,port=80-90/tcp,port=icmp"),
        ),
        egress=(),
    )
    assert selector_words(spec.selects) == "service=web,label=a=b"
    words = "service=api or cidr=10.0.0.0/8,but 10.1.0.0/16, port 80-90/tcp or icmp"
    assert direction_words(spec, "ingress") == words
    assert direction_words(spec, "egress") == "deny"
    assert direction_words(PolicySpec(name="q"), "egress") == "-"
