"""A fleet's specs as files: there and back, and every mistake with its place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.commands.fleetfiles import _refuse
from cli.parse.fleetfiles import (
    ContainerFile,
    FleetFiles,
    VolumeFile,
    changes,
    document,
    files,
    from_document,
    from_files,
)
from cli.parse.yaml12 import line_of, parse_yaml, to_yaml
from model.api import UpdateSettings
from model.errors import InvalidInput
from model.policy import PolicyPeer, PolicyRule, PolicySpec, Selector
from model.servicerules import kept_up
from model.spec import (
    Attachment,
    ContainerSpec,
    Global,
    HealthCheck,
    HttpProbe,
    NetworkSpec,
    Publish,
    Replicated,
    ServiceSpec,
    Subnet,
)

WEB = kept_up(
    ServiceSpec(
        name="web",
        container=ContainerSpec(
            image="box:1",
            args=("sh", "-c", "echo 'a: b' # c\nexit 0"),
            env={"YES": "yes", "N": "08", "F": "1.5", "E": "", "T": "~", "D": "2026-01-01", "U": "ě⛔"},
            networks=(Attachment(network="net", aliases=("w",)),),
            ports=(Publish(target=80, mode="ingress"),),
            stop_grace=0.5,
            health=HealthCheck(probe=HttpProbe(port=80), interval=2.0),
        ),
        mode=Replicated(replicas=3),
    )
)
WHOLE = FleetFiles(
    settings=UpdateSettings(vxlan_port=4790, vni_range=(5000, 6000), source_ports=(0, 0)),
    objects={
        "networks": {
            n.name: n
            for n in (
                NetworkSpec(name="net", subnets=(Subnet(cidr="10.9.0.0/16"),), options={"mtu": "1400"}),
                NetworkSpec(name="local", driver="bridge", subnets=(Subnet(cidr="10.8.0.0/24"),)),
            )
        },
        "volumes": {"data": VolumeFile(name="data", labels={"a": "b"}, hosts=("n1", "n2"))},
        "policies": {
            "shut": PolicySpec(
                name="shut",
                selects=Selector(service="web"),
                ingress=(PolicyRule(peers=(PolicyPeer(cidr="10.0.0.0/8"),)),),
            )
        },
        "services": {
            "web": WEB,
            "all": kept_up(ServiceSpec(name="all", container=ContainerSpec(image="x"), mode=Global())),
        },
        "containers": {
            "one": ContainerFile(name="one", spec=ContainerSpec(image="box:1"), host="n1", start=True)
        },
    },
)


def test_files_of_a_fleet_are_read_as_what_they_were_and_written_again_the_same() -> None:
    texts = files(WHOLE)
    assert sorted(texts) == [
        "containers/one.yaml",
        "fleet.yaml",
        "networks/local.yaml",
        "networks/net.yaml",
        "policies/shut.yaml",
        "services/all.yaml",
        "services/web.yaml",
        "volumes/data.yaml",
    ]
    again = from_files(texts)
    assert again == WHOLE
    assert files(again) == texts


def test_document_of_a_fleet_is_read_as_what_it_was() -> None:
    text = document(WHOLE)
    assert from_document("stdin", text) == WHOLE
    assert document(from_document("stdin", text)) == text
    assert from_document("stdin", "") == FleetFiles()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(min_size=1), plain, max_size=4))
def test_any_plain_data_comes_back_from_yaml(value: Any) -> None:
    assert parse_yaml("f", to_yaml(value), floats=True) == value


def test_line_of_a_path_is_where_it_stands() -> None:
    text = (
        "# x\nname: web\ncontainer:\n  image: a\n  ports:\n    - target: 1\n    - target: 2\n      bad: 3\n"
    )
    assert [
        line_of(text, path)
        for path in ("", "name", "container.image", "container.ports[1].bad", "container.nothing", "none")
    ] == [1, 2, 4, 8, 3, 1]


def refusals(texts: dict[str, str]) -> list[str]:
    with pytest.raises(InvalidInput) as refusal:
        from_files(texts)
    return [str(problem) for problem in refusal.value.problems]


def test_every_mistake_of_all_files_is_told_at_once_with_its_place() -> None:
    found = refusals(
        {
            "fleet.yaml": "vxlan_port: 70000\n",
            "services/web.yaml": "name: web\ncontainer:\n  image: a\n  prots: []\nreplica: 3\n",
            "services/bad.yaml": "name: bad\ncontainer:\n  image: a\n  ports:\n    - target: 99999\n",
            "services/type.yaml": "name: type\ncontainer:\n  image: 3\n",
            "services/again.yaml": "name: web\ncontainer:\n  image: a\n",
            "services/text.yaml": "a: [\n",
            "networks/net.yaml": "name: net\ndriver: overlay\nsubnets:\n  - cidr: 10.0.0.1/8\n",
            "notes/x.yaml": "a: b\n",
            "policies/p.yaml": "selects: {}\n",
        }
    )
    for words in (
        "fleet.yaml:1: vxlan_port: 70000 is no port",
        "services/web.yaml:4: container.prots: unknown field",
        "services/web.yaml:5: replica: unknown field",
        "services/bad.yaml:5: container.ports[0]",
        "services/type.yaml:3: container.image: Expected `str`, got `int`",
        "services/text.yaml is no YAML: line 2",
        "networks/net.yaml:4: subnets[0]",
        "notes/x.yaml: no such file is known",
        "policies/p.yaml:1: Object missing required field `name`",
    ):
        assert any(words in line for line in found), (words, found)


def test_name_that_two_files_have_is_told() -> None:
    one = "name: web\ncontainer:\n  image: a\n"
    assert refusals({"services/a.yaml": one, "services/b.yaml": one}) == [
        "services/b.yaml:1: name: another file has 'web' too"
    ]


def test_document_with_mistakes_tells_their_lines() -> None:
    web = "services:\n  web:\n    name: other\n    container: {image: a}\n"
    text = f"fleet: {{vni_range: [9, 1]}}\n{web}things: {{}}\n"
    with pytest.raises(InvalidInput) as refusal:
        from_document("stdin", text)
    assert [str(p) for p in refusal.value.problems] == [
        "stdin:1: fleet.vni_range: 9-1 is no range of VNIs (1 to 16777215, RFC 7348)",
        "stdin:4: services.web.name: 'other' is not 'web'",
        "stdin:6: things: there are fleet, networks, volumes, policies, services, containers",
    ]
    with pytest.raises(InvalidInput, match="no map of kinds"):
        from_document("stdin", "- a\n")


def test_changes_are_told_field_by_field_and_none_where_all_is_as_it_should_be() -> None:
    assert changes(WHOLE, WHOLE) == ()
    assert changes(WHOLE, FleetFiles()) == ()
    empty = [line for change in changes(FleetFiles(), WHOLE) for line in change.lines()]
    assert [line for line in empty if line[0] in "+~"] == [
        "~ fleet/settings",
        "+ networks/local",
        "+ networks/net",
        "+ volumes/data",
        "+ policies/shut",
        "+ services/all",
        "+ services/web",
        "+ containers/one",
    ]
    text = files(WHOLE)["services/web.yaml"].replace("replicas: 3", "replicas: 5").replace("box:1", "box:2")
    (change,) = changes(WHOLE, from_files({"services/web.yaml": text}))
    assert change.fields == ("container.image: box:1 → box:2", "mode.replicas: 3 → 5")


def test_network_whose_subnet_the_fleet_chose_is_as_its_file_says() -> None:
    assert changes(WHOLE, from_files({"networks/net.yaml": "name: net\noptions: {mtu: '1400'}\n"})) == ()
    (change,) = changes(WHOLE, from_files({"networks/net.yaml": "name: net\ninternal: true\n"}))
    assert "internal: - → True" in change.fields


def test_volume_is_made_on_hosts_that_lack_it_and_nothing_else_of_it_changes() -> None:
    text = "name: data\nlabels: {{a: {}}}\nhosts: [{}]\n"
    assert changes(WHOLE, from_files({"volumes/data.yaml": text.format("b", "n2, n1")})) == ()
    assert changes(WHOLE, from_files({"volumes/data.yaml": text.format("b", "n2")})) == ()
    (change,) = changes(WHOLE, from_files({"volumes/data.yaml": text.format("b", "n3, n1")}))
    assert change.fields == ("hosts[2]: - → n3",)
    relabelled = from_files({"volumes/data.yaml": text.format("c", "n1")})
    hosts: Any = SimpleNamespace(call=lambda *_: [{"host": {"spec": {"name": "n1"}}}])
    with pytest.raises(InvalidInput) as refusal:
        _refuse(hosts, changes(WHOLE, relabelled), relabelled)
    (problem,) = refusal.value.problems
    assert str(problem) == "volumes/data: it can't be changed (labels.a: b → c): remove it first"
