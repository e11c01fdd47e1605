"""Docker's ServiceSpec and flota's: field by field, there and back, and merged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from api.docker.bodies import convert, decode
from api.docker.swarm.body import SPEC, ServiceBody
from api.docker.swarm.description import spec_words
from api.docker.swarm.merging import merged
from api.docker.swarm.spec import FORCED, spec_of
from api.docker.swarm.tasks import state
from model.api import InstanceInfo
from model.errors import InvalidInput
from model.ids import HostId, InstanceId
from model.records import Desired, Instance
from model.servicerules import kept_up
from model.spec import (
    Attachment,
    ContainerSpec,
    ExecProbe,
    Global,
    HealthCheck,
    HttpProbe,
    LogOptions,
    Mount,
    Placement,
    Publish,
    Replicated,
    Reservations,
    Resources,
    RestartPolicy,
    ServiceSpec,
    Ulimit,
    UpdatePolicy,
)
from model.status import InstanceStatus, Phase

IDS = {"back": "id-of-back", "id-of-back": "id-of-back"}
SECOND = 1_000_000_000


def named(ref: str) -> str:
    return {"id-of-back": "back"}.get(ref, ref)


def read(**words: Any) -> ServiceSpec:
    task = {"ContainerSpec": {"Image": "box"}} | words.pop("TaskTemplate", {})
    task["ContainerSpec"] = {"Image": "box"} | task["ContainerSpec"]
    body = decode(json.dumps({"Name": "web", "TaskTemplate": task, **words}).encode(), SPEC)
    assert isinstance(body, ServiceBody)
    return spec_of(body, named)


def container(**words: Any) -> Any:
    return read(TaskTemplate={"ContainerSpec": words}).container


def task(**words: Any) -> ServiceSpec:
    return read(TaskTemplate=words)


CONTAINER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"Command": ["sh"], "Args": ["-c", "x"]}, {"entrypoint": ("sh",), "args": ("-c", "x")}),
    ({"Env": ["A=b", "C="]}, {"env": {"A": "b", "C": ""}}),
    ({"Dir": "/w", "User": "1:2", "Groups": ["3"]}, {"workdir": "/w", "user": "1:2", "groups": ("3",)}),
    ({"Hostname": "h", "Labels": {"a": "b"}}, {"hostname": "h", "labels": {"a": "b"}}),
    ({"TTY": True, "OpenStdin": True, "Init": True}, {"tty": True, "stdin": True, "init": True}),
    ({"ReadOnly": True, "StopSignal": "INT"}, {"read_only": True, "stop_signal": "INT"}),
    ({"StopGracePeriod": 3 * SECOND}, {"stop_grace": 3.0}),
    ({"Hosts": ["192.0.2.1 a b", "c:192.0.2.2"]},
     {"extra_hosts": ("a:192.0.2.1", "b:192.0.2.1", "c:192.0.2.2")}),
    ({"DNSConfig": {"Nameservers": ["192.0.2.3"], "Search": ["x"], "Options": ["ndots:1"]}},
     {"dns": ("192.0.2.3",), "dns_search": ("x",), "dns_options": ("ndots:1",)}),
    ({"CapabilityAdd": ["NET_ADMIN"], "CapabilityDrop": ["ALL"], "Sysctls": {"a": "1"}},
     {"cap_add": ("NET_ADMIN",), "cap_drop": ("ALL",), "sysctls": {"a": "1"}}),
    ({"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}]},
     {"ulimits": (Ulimit(name="nofile", soft=1, hard=2),)}),
    ({"Privileges": {"SELinuxContext": {"Disable": True, "User": ""}, "AppArmor": {"Mode": "disabled"}}}, {}),
    ({"Privileges": {"Seccomp": {"Mode": "unconfined"}, "NoNewPrivileges": True}},
     {"seccomp": "unconfined", "no_new_privileges": True}),
    ({"Healthcheck": {"Test": ["CMD", "x"], "Interval": 2 * SECOND, "Retries": 3}},
     {"health": HealthCheck(probe=ExecProbe(args=("x",)), interval=2.0, retries=3)}),
    ({"Mounts": [{"Type": "volume", "Source": "v", "Target": "/d", "ReadOnly": True,
                  "VolumeOptions": {"NoCopy": True}},
                 {"Type": "bind", "Source": "/s", "Target": "/b", "BindOptions": {"Propagation": "rslave"}},
                 {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 448}}]},
     {"mounts": (Mount(type="volume", source="v", target="/d", read_only=True, no_copy=True),
                 Mount(type="bind", source="/s", target="/b", propagation="rslave"),
                 Mount(type="tmpfs", target="/t", tmpfs_size=4096, tmpfs_mode=0o700))}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "ours"), CONTAINER, ids=lambda c: ",".join(c))
def test_field_of_a_container_is_mapped_there_and_back(words: dict[str, Any], ours: dict[str, Any]) -> None:
    found = container(**words)
    assert found == replace(ContainerSpec(image="box"), **ours)
    assert again(ServiceSpec(name="web", container=found)).container == kept(found)


def kept(found: ContainerSpec) -> ContainerSpec:
    return kept_up(ServiceSpec(name="web", container=found)).container


def again(spec: ServiceSpec) -> ServiceSpec:
    """What its description means; times of restarts that Docker has no words for come back as one."""
    stored = kept_up(spec)
    found = spec_of(convert(spec_words(stored, IDS), ServiceBody), named)
    restart = replace(found.container.restart, max_delay=stored.container.restart.max_delay)
    return replace(found, container=replace(found.container, restart=restart))


TASK: list[tuple[dict[str, Any], ServiceSpec]] = [
    ({"Resources": {"Limits": {"NanoCPUs": 5, "MemoryBytes": 6, "Pids": 7},
                    "Reservations": {"NanoCPUs": 3, "MemoryBytes": 4}}},
     ServiceSpec(name="web",
                 container=ContainerSpec(image="box", resources=Resources(nano_cpus=5, memory=6, pids=7)),
                 placement=Placement(reservations=Reservations(nano_cpus=3, memory=4)))),
    ({"Placement": {"Constraints": ["node.labels.a == b", "node.role==worker", "node.role != manager"],
                    "MaxReplicas": 2}},
     ServiceSpec(name="web", container=ContainerSpec(image="box"),
                 placement=Placement(constraints=("node.labels.a == b",), max_per_host=2))),
    ({"RestartPolicy": {"Condition": "on-failure", "Delay": 2 * SECOND, "MaxAttempts": 3,
                        "Window": 4 * SECOND}},
     ServiceSpec(name="web", container=ContainerSpec(image="box", restart=RestartPolicy(
         condition="on-failure", max_attempts=3, delay=2.0, max_delay=2.0, window=4.0)))),
    ({"RestartPolicy": {"Condition": "none"}},
     ServiceSpec(name="web", container=ContainerSpec(image="box"), may_end=True)),
    ({"RestartPolicy": {"Condition": "any"}},
     ServiceSpec(name="web",
                 container=ContainerSpec(image="box", restart=RestartPolicy(condition="always")))),
    ({"ForceUpdate": 3},
     ServiceSpec(name="web", container=ContainerSpec(image="box", annotations={FORCED: "3"}))),
    ({"Networks": [{"Target": "id-of-back", "Aliases": ["www"]}, {"Target": "front"}]},
     ServiceSpec(name="web", container=ContainerSpec(image="box", networks=(
         Attachment(network="back", aliases=("www",)), Attachment(network="front"))))),
    ({"LogDriver": {"Name": "json-file", "Options": {"max-size": "1m", "max-file": "2"}}},
     ServiceSpec(name="web",
                 container=ContainerSpec(image="box", log=LogOptions(max_size=1 << 20, max_files=2)))),
]  # fmt: skip


@pytest.mark.parametrize(("words", "ours"), TASK, ids=lambda c: ",".join(c) if isinstance(c, dict) else "")
def test_field_of_a_task_is_mapped_there_and_back(words: dict[str, Any], ours: ServiceSpec) -> None:
    assert task(**words) == ours
    assert again(ours) == kept_up(ours)


SERVICE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"mode": Replicated(replicas=1)}),
    ({"Mode": {"Replicated": {}}}, {"mode": Replicated(replicas=1)}),
    ({"Mode": {"Replicated": {"Replicas": None}}}, {"mode": Replicated(replicas=1)}),
    ({"Mode": {"Replicated": {"Replicas": 0}}}, {"mode": Replicated(replicas=0)}),
    ({"Mode": {"Global": {}}}, {"mode": Global()}),
    ({"Labels": {"a": "b"}}, {"labels": {"a": "b"}}),
    ({"UpdateConfig": {"Parallelism": 2, "Delay": SECOND, "FailureAction": "rollback", "Monitor": SECOND,
                       "MaxFailureRatio": 0.5, "Order": "start-first"}},
     {"update": UpdatePolicy(parallelism=2, delay=1.0, failure_action="rollback", monitor=1.0,
                             max_failure_ratio=0.5, order="start-first")}),
    ({"RollbackConfig": {}}, {"rollback": UpdatePolicy(parallelism=0)}),
    ({"EndpointSpec": {"Mode": "dnsrr"}}, {"endpoint_mode": "dnsrr"}),
    ({"update_config": {}, "updateconfig": {"order": "start-first"}},
     {"update": UpdatePolicy(parallelism=0, order="start-first")}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "ours"), SERVICE)
def test_field_of_a_service_is_mapped_there_and_back(words: dict[str, Any], ours: dict[str, Any]) -> None:
    found = read(**words)
    expected = replace(ServiceSpec(name="web", container=ContainerSpec(image="box")), **ours)
    assert found == expected
    assert again(expected) == kept_up(expected)


def test_ports_are_for_every_host_unless_they_say_otherwise() -> None:
    found = read(EndpointSpec={"Ports": [
        {"TargetPort": 80, "PublishedPort": 8080},
        {"TargetPort": 53, "Protocol": "udp", "PublishMode": "host", "Name": "dns"},
    ]})  # fmt: skip
    assert found.container.ports == (
        Publish(target=80, published=8080, mode="ingress"),
        Publish(target=53, protocol="udp"),
    )
    assert again(found) == kept_up(found)


def test_older_clients_name_networks_beside_the_task() -> None:
    assert read(Networks=[{"Target": "id-of-back"}]).container.networks == (Attachment(network="back"),)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"Mode": {"ReplicatedJob": {}}}, "Mode: jobs"),
    ({"Mode": {"Replicated": {}, "Global": {}}}, "only one service mode"),
    ({"EndpointSpec": {"Mode": "x"}}, "EndpointSpec.Mode: 'x'"),
    ({"EndpointSpec": {"Ports": [{"PublishMode": "x"}]}}, "EndpointSpec.Ports[0].PublishMode: 'x'"),
    ({"EndpointSpec": {"Ports": [{"Protocol": "x"}]}}, "EndpointSpec.Ports[0].Protocol"),
    ({"UpdateConfig": {"Order": "x"}}, "UpdateConfig.Order"),
    ({"RollbackConfig": {"FailureAction": "x"}}, "RollbackConfig.FailureAction"),
    ({"UpdateConfig": {"Delay": -1}}, "UpdateConfig.Delay: must not be negative"),
    ({"TaskTemplate": {"Runtime": "plugin"}}, "TaskTemplate.Runtime: 'plugin'"),
    ({"TaskTemplate": {"RestartPolicy": {"Condition": "x"}}}, "RestartCondition: 'x'"),
    ({"TaskTemplate": {"RestartPolicy": {"Delay": -5}}}, "TaskTemplate.RestartPolicy.Delay"),
    ({"TaskTemplate": {"ContainerSpec": {"Image": ""}}}, "image reference must be provided"),
    ({"TaskTemplate": {"ContainerSpec": {"Env": ["A={{.Task.Slot}}"]}}}, "ContainerSpec.Env: templates"),
    ({"TaskTemplate": {"ContainerSpec": {"Mounts": [{"Type": "npipe"}]}}}, "ContainerSpec.Mounts[0].Type"),
    ({"TaskTemplate": {"ContainerSpec": {"Privileges": {"Seccomp": {"Mode": "custom"}}}}},
     "ContainerSpec.Privileges.Seccomp.Mode: 'custom'"),
    ({"TaskTemplate": {"ContainerSpec": {"Privileges": {"SELinuxContext": {"User": "u"}}}}},
     "ContainerSpec.Privileges.SELinuxContext is not supported"),
    ({"TaskTemplate": {"Placement": {"Constraints": ["node.role == manager"]}}}, "fits no node"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "told"), WRONG, ids=[told for _, told in WRONG])
def test_what_can_not_be_done_is_named(words: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(**words)
    assert told in str(caught.value)


WHOLE = kept_up(ServiceSpec(
    name="web",
    container=ContainerSpec(
        image="box:1@sha256:abc",
        env={"A": "1", "B": "2"},
        annotations={"own": "x", FORCED: "1"},
        networks=(Attachment(network="back", priority=5, keep_address=True),),
        ports=(Publish(target=80, published=8080, mode="ingress", allow=("192.0.2.0/24",)),
               Publish(target=81, published=8100, published_to=8110)),
        mounts=(Mount(type="bind", source="/s", target="/b", create_source=True),
                Mount(type="volume", target="/anonymous")),
        health=HealthCheck(probe=HttpProbe(port=80)),
        drain=9.0, pull="always", shm_size=1 << 20, security_profile="strict", platform="linux/arm64",
        restart=RestartPolicy(condition="unless-stopped", delay=0.5, max_delay=8.0),
        resources=Resources(memory=1 << 30, cpuset_cpus="0", cpu_shares=5),
    ),
    placement=Placement(strategy="binpack", constraints=("node.id==x",)),
    balance="sticky",
))  # fmt: skip


def seen_and_sent(change: Any) -> ServiceSpec:
    """The spec after a client has read it, changed its words, and sent them back."""
    words = json.loads(json.dumps(spec_words(WHOLE, IDS)))
    was = spec_of(convert(json.loads(json.dumps(words)), ServiceBody), named)
    change(words)
    return merged(WHOLE, was, spec_of(convert(words, ServiceBody), named))


def test_what_is_sent_back_as_it_was_changes_nothing() -> None:
    assert seen_and_sent(lambda words: None) == WHOLE


def test_how_a_service_is_updated_is_left_out_where_nobody_said_so() -> None:
    plain = ServiceSpec(name="web", container=ContainerSpec(image="box"))
    assert not {"UpdateConfig", "RollbackConfig"} & set(spec_words(plain, IDS, defaults=False))
    said = spec_words(replace(plain, update=UpdatePolicy(parallelism=2)), IDS, defaults=False)
    assert said["UpdateConfig"]["Parallelism"] == 2 and "RollbackConfig" not in said
    assert spec_words(plain, IDS)["UpdateConfig"]["Parallelism"] == 1


def test_one_changed_field_changes_that_alone() -> None:
    def env(words: Any) -> None:
        words["TaskTemplate"]["ContainerSpec"]["Env"] = ["A=1", "C=3"]

    expected = replace(WHOLE, container=replace(WHOLE.container, env={"A": "1", "C": "3"}))
    assert seen_and_sent(env) == expected


def test_changed_items_of_lists_keep_what_was_said_beside() -> None:
    def change(words: Any) -> None:
        words["TaskTemplate"]["Networks"][0]["Aliases"] = ["www"]
        words["EndpointSpec"]["Ports"].append({"TargetPort": 90, "PublishedPort": 9090})
        del words["EndpointSpec"]["Ports"][1]
        words["TaskTemplate"]["ForceUpdate"] = 2
        words["TaskTemplate"]["Resources"]["Limits"]["MemoryBytes"] = 5 << 20

    found = seen_and_sent(change).container
    assert found.networks == (replace(WHOLE.container.networks[0], aliases=("www",)),)
    assert found.ports == (
        WHOLE.container.ports[0],
        Publish(target=90, published=9090, mode="ingress"),
    )
    assert found.annotations == {"own": "x", FORCED: "2"}
    assert found.resources == replace(WHOLE.container.resources, memory=5 << 20)


@pytest.mark.parametrize(
    ("phase", "desired", "more", "word"),
    [
        (Phase.PENDING, Desired.RUNNING, {}, "pending"),
        (Phase.ASSIGNED, Desired.RUNNING, {}, "assigned"),
        (Phase.PULLING, Desired.RUNNING, {}, "preparing"),
        (Phase.PREPARING, Desired.RUNNING, {}, "preparing"),
        (Phase.CREATED, Desired.RUNNING, {}, "ready"),
        (Phase.STARTING, Desired.RUNNING, {}, "starting"),
        (Phase.RUNNING, Desired.RUNNING, {}, "running"),
        (Phase.RUNNING, Desired.RUNNING, {"health": "starting"}, "starting"),
        (Phase.RUNNING, Desired.RUNNING, {"opening": True}, "starting"),
        (Phase.RUNNING, Desired.RUNNING, {"health": "unhealthy"}, "running"),
        (Phase.RUNNING, Desired.REMOVED, {"health": "starting"}, "running"),
        (Phase.STOPPING, Desired.REMOVED, {}, "running"),
        (Phase.RESTARTING, Desired.RUNNING, {}, "ready"),
        (Phase.EXITED, Desired.RUNNING, {"exit_code": 0}, "complete"),
        (Phase.EXITED, Desired.RUNNING, {"exit_code": 3}, "failed"),
        (Phase.EXITED, Desired.RUNNING, {"exit_code": None}, "failed"),
        (Phase.EXITED, Desired.STOPPED, {"exit_code": 143}, "shutdown"),
        (Phase.FAILED, Desired.RUNNING, {}, "rejected"),
        (Phase.FAILED, Desired.RUNNING, {"started_at": 1.0}, "failed"),
        (Phase.REMOVED, Desired.REMOVED, {}, "shutdown"),
        (Phase.LOST, Desired.RUNNING, {}, "orphaned"),
    ],
)
def test_phase_is_a_state_of_dockers(phase: Phase, desired: Desired, more: dict[str, Any], word: str) -> None:
    host = None if phase is Phase.PENDING else HostId("h")
    spec = ContainerSpec(image="box")
    instance = Instance(id=InstanceId("i"), name="web.1", spec=spec, host=host, desired=desired)
    status = InstanceStatus(instance=instance.id, phase=phase, **more)
    assert state(InstanceInfo(instance=instance, status=status)) == word
