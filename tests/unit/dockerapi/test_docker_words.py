"""What a client said of a container comes back as it was said, where flota keeps another form of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from api.docker.containers.inspection import Around, inspect
from api.docker.networks.spec import endpoints
from model.api import InstanceInfo
from model.errors import InvalidInput
from model.ids import InstanceId, NetworkId
from model.image import ImageConfig
from model.records import Instance, Network, ResolvedAttachment
from model.spec import Attachment, ContainerSpec, LogOptions, NetworkSpec
from model.status import Endpoint, InstanceStatus
from model.validate import validate_container
from tests.unit.dockerapi.test_docker_containers import IMAGE, spec

NETWORK = NetworkId("e" * 64)


def inspected(made: ContainerSpec, *feet: Endpoint) -> dict[str, Any]:
    wishes = [
        ResolvedAttachment(
            network=NETWORK,
            **{name: getattr(wish, name) for name in ("mac", "ifname", "sysctls", "driver_opts", "links")},
        )
        for wish in made.networks[:1]
    ]
    ident = InstanceId("a" * 64)
    instance = Instance(id=ident, name="web", spec=made, attachments=tuple(wishes))
    status = InstanceStatus(instance=ident, endpoints=feet)
    return inspect(InstanceInfo(instance=instance, status=status), Around(networks={NETWORK: "blue"}))


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ({"Tmpfs": {"/tmp1": "size=3M"}}, {"Tmpfs": {"/tmp1": "size=3M"}}),
        ({"Isolation": "default"}, {"Isolation": "default"}),
        ({}, {"Isolation": "", "LogConfig": {"Type": "json-file", "Config": {}}}),
        ({"LogConfig": {"Type": "", "Config": {"max-file": "100"}}},
         {"LogConfig": {"Type": "json-file", "Config": {"max-file": "100"}}}),
        ({"LogConfig": {"Type": "local", "Config": None}}, {"LogConfig": {"Type": "local", "Config": {}}}),
        ({"VolumesFrom": ["one:ro", "two"]}, {"VolumesFrom": ["one:ro", "two"]}),
        ({"VolumeDriver": "foo"}, {"VolumeDriver": "foo"}),
    ],
    ids=str,
)  # fmt: skip
def test_words_of_host_config_come_back_as_they_were_said(
    host: dict[str, Any], shown: dict[str, Any]
) -> None:
    made = spec(**host)
    assert validate_container(made) == []
    seen = inspected(made)["HostConfig"]
    assert {name: seen[name] for name in shown} == shown


def test_container_of_another_client_shows_the_logs_bounds_that_hold() -> None:
    made = ContainerSpec(image="x", args=("a",), log=LogOptions(max_size=1 << 20, max_files=2))
    config = inspected(made)["HostConfig"]["LogConfig"]
    assert config == {"Type": "json-file", "Config": {"max-file": "2", "max-size": "1m"}}


def test_log_driver_none_keeps_no_log() -> None:
    made = spec(LogConfig={"Type": "none"})
    assert made.log.driver == "none"
    assert inspected(made)["HostConfig"]["LogConfig"] == {"Type": "none", "Config": {}}
    assert inspected(replace(made, said={}))["HostConfig"]["LogConfig"]["Type"] == "none"
    with pytest.raises(InvalidInput, match="unknown log opt 'labels' for none log driver"):
        spec(LogConfig={"Type": "none", "Config": {"labels": "a"}})


def test_driver_of_volumes_is_refused_where_a_volume_would_be_made_by_it() -> None:
    config: dict[str, Any]
    for config, image in (({"Volumes": {"/v": {}}}, IMAGE), ({}, ImageConfig(cmd=("a",), volumes=("/v",)))):
        with pytest.raises(InvalidInput, match=r"HostConfig\.VolumeDriver: 'foo' is not supported"):
            spec(config, image, VolumeDriver="foo")
    with pytest.raises(InvalidInput, match=r"HostConfig\.VolumeDriver"):
        spec(VolumeDriver="foo", Binds=["named:/v"])
    assert spec(VolumeDriver="foo", Binds=["/host:/v"]).mounts


def test_isolation_of_windows_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"HostConfig\.Isolation: 'hyperv' is not supported"):
        spec(Isolation="hyperv")


def test_variable_without_a_value_is_shown_without_one() -> None:
    assert inspected(spec({"Env": ["Foo", "Blank="]}))["Config"]["Env"] == ["Blank=", "Foo"]


def test_options_of_an_endpoint_come_back_and_dockers_own_unknown_are_refused() -> None:
    options = {"com.docker.network.endpoint.ifname": "net0", "key1": "a"}
    wishes = {"blue": {"DriverOpts": options, "MacAddress": "02:42:ac:11:00:02"}}
    made = spec({"NetworkingConfig": {"EndpointsConfig": wishes}}, NetworkMode="blue")
    assert made.networks[0].driver_opts == {"key1": "a"}
    shown = inspected(made)["NetworkSettings"]["Networks"]["blue"]
    assert (shown["DriverOpts"], shown["MacAddress"]) == (options, "02:42:ac:11:00:02")
    foot = Endpoint(network=NETWORK, network_name="blue", ifname="net0", mac="02:00:00:00:00:01")
    assert inspected(made, foot)["NetworkSettings"]["Networks"]["blue"]["MacAddress"] == foot.mac
    wishes = {"blue": {"DriverOpts": {"com.docker.network.endpoint.new": "1"}}}
    with pytest.raises(InvalidInput, match=r"DriverOpts: com\.docker\.network\.endpoint\.new"):
        spec({"NetworkingConfig": {"EndpointsConfig": wishes}}, NetworkMode="blue")


def test_labels_of_a_volume_go_with_its_mount() -> None:
    wish = {"Type": "volume", "Source": "v", "Target": "/d", "VolumeOptions": {"Labels": {"a": "b"}}}
    made = spec(Mounts=[wish])
    assert made.mounts[0].labels == {"a": "b"}
    assert inspected(made)["HostConfig"]["Mounts"] == [wish]


def test_links_are_of_the_network_and_come_back() -> None:
    wishes = {"blue": {"Links": ["upstream:bar", "other"]}}
    made = spec({"NetworkingConfig": {"EndpointsConfig": wishes}}, NetworkMode="blue", Links=["/x:/me/y"])
    assert made.networks[0].links == {"y": "x", "bar": "upstream", "other": "other"}
    assert validate_container(made) == []
    shown = inspected(made)["NetworkSettings"]["Networks"]["blue"]["Links"]
    assert shown == ["x:y", "upstream:bar", "other:other"]


@pytest.mark.parametrize("link", [":a", "a:", "a:b:c", ""])
def test_link_of_no_form_is_refused(link: str) -> None:
    with pytest.raises(InvalidInput, match="bad format for links"):
        spec(NetworkMode="blue", Links=[link])


def test_link_where_there_is_no_network_is_refused() -> None:
    with pytest.raises(InvalidInput, match="conflicting options: network mode host and links"):
        spec(NetworkMode="host", Links=["a:b"])


@pytest.mark.parametrize(("links", "words"), [({"a b": "c"}, "a b"), ({"a": "b c"}, "no container's name")])
def test_link_of_no_name_is_told_as_a_problem(links: dict[str, str], words: str) -> None:
    wish = Attachment(network="blue", links=links)
    (problem,) = validate_container(ContainerSpec(image="x", args=("a",), networks=(wish,)))
    assert words in problem.message and problem.path.startswith("spec.networks[0].links")


@pytest.mark.parametrize(
    ("said", "words"),
    [({"Binds": "[]"}, "no field"), ({"Tmpfs": "{"}, "no JSON"), ({"Tmpfs": "1" * (300 << 10)}, "larger")],
)
def test_words_that_nobody_said_that_way_are_refused(said: dict[str, str], words: str) -> None:
    (problem,) = validate_container(replace(ContainerSpec(image="x", args=("a",)), said=said))
    assert words in problem.message and problem.path.startswith("spec.said")


def test_network_shows_who_is_to_be_on_it() -> None:
    network = Network(id=NETWORK, spec=NetworkSpec(name="blue"))
    foot = Endpoint(network=NETWORK, network_name="blue", ifname="eth0", mac="02:00:00:00:00:01")
    ident = InstanceId("a" * 64)
    wish = ResolvedAttachment(network=NETWORK)
    instance = Instance(id=ident, name="web", spec=ContainerSpec(image="x"), attachments=(wish,))
    status = InstanceStatus(instance=ident, endpoints=(foot,))
    assert list(endpoints(network, [InstanceInfo(instance=instance, status=status)])) == [ident]
    taken_off = replace(instance, attachments=())
    assert endpoints(network, [InstanceInfo(instance=taken_off, status=status)]) == {}
