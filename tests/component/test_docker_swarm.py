"""Services, tasks and nodes by the stock docker command, against a real controller with hosts in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from model.api import UpdateService
from model.spec import Attachment, ContainerSpec, HealthCheck, HttpProbe, Publish, Replicated, ServiceSpec
from tests.support.dockerfleet import DockerFleet, docker_fleet
from tests.support.waiting import until

DEADLINE = 10.0
CREATE = ("service", "create", "--no-resolve-image", "--detach")
UPDATE = ("service", "update", "--no-resolve-image", "--detach")


@pytest.fixture
async def docker(tmp_path: Path) -> AsyncIterator[DockerFleet]:
    async with docker_fleet(tmp_path) as made:
        yield made


async def settled(docker: DockerFleet, name: str, count: int) -> None:
    await until(
        lambda: docker.controller.get_service(name).running == count, deadline=DEADLINE, what="its tasks"
    )


async def test_service_is_made_listed_scaled_and_removed(docker: DockerFleet) -> None:
    ident = await docker(
        *CREATE, "--name", "web", "--replicas", "2", "--publish", "8080:80", "--label", "a=b",
        "--container-label", "c=d", "--env", "E=f", "busybox", "sleep", "9",
    )  # fmt: skip
    assert docker.controller.get_service("web").service.id == ident
    await settled(docker, "web", 2)
    listed = await docker(
        "service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}} {{.Ports}}"
    )
    assert listed == "web replicated 2/2 busybox:latest *:8080->80/tcp"
    tasks = await docker(
        "service", "ps", "web", "--format", "{{.Name}} {{.Node}} {{.DesiredState}} {{.CurrentState}}"
    )
    rows = [line.split() for line in sorted(tasks.splitlines())]
    assert [row[:4] for row in rows] == [
        ["web.1", rows[0][1], "Running", "Running"], ["web.2", rows[1][1], "Running", "Running"]
    ]  # fmt: skip
    assert {row[1] for row in rows} == {"host1", "host2"}
    await docker("service", "scale", "--detach", "web=3")
    await settled(docker, "web", 3)
    seen = await docker.inspect("service", "web")
    assert seen["Spec"]["Labels"] == {"a": "b"}
    assert seen["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["E=f"]
    assert seen["Endpoint"]["Ports"][0]["PublishedPort"] == 8080
    await docker("service", "rm", "web")
    assert await docker("service", "ls", "-q") == ""
    assert "no such service: web" in await docker.refusal("service", "inspect", "web")


async def test_command_that_waits_sees_the_service_converge(docker: DockerFleet) -> None:
    words = ("service", "create", "--no-resolve-image", "--update-monitor", "1ms", "--name", "web")
    await docker(*words, "--replicas", "2", "busybox", "sleep", "9")
    assert docker.controller.get_service("web").running == 2
    await docker("service", "update", "--no-resolve-image", "--env-add", "A=b", "web")
    infos = docker.controller.get_service("web").instances
    running = [i.instance for i in infos if i.status.phase == "running"]
    assert [i.spec.env for i in running if i.desired == "running"] == [{"A": "b"}] * 2


async def test_change_is_rolled_out_and_taken_back(docker: DockerFleet) -> None:
    await docker(*CREATE, "--name", "web", "--env", "V=1", "--update-monitor", "1ms", "busybox", "sleep", "9")
    await settled(docker, "web", 1)
    await docker(*UPDATE, "--env-add", "V=2", "web")
    await until(lambda: _env(docker) == {"V": "2"}, deadline=DEADLINE, what="the new task")
    seen = await docker.inspect("service", "web")
    assert seen["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["V=1"]
    assert seen["UpdateStatus"]["State"] in ("updating", "completed")
    await docker("service", "rollback", "--detach", "web")
    await until(lambda: _env(docker) == {"V": "1"}, deadline=DEADLINE, what="the old spec")
    assert (await docker.inspect("service", "web"))["UpdateStatus"]["State"].startswith("rollback")


def _env(docker: DockerFleet) -> Any:
    infos = docker.controller.get_service("web").instances
    running = [i for i in infos if i.instance.desired == "running" and i.status.phase == "running"]
    return running[0].instance.spec.env if len(running) == 1 else None


async def test_forced_update_replaces_every_task(docker: DockerFleet) -> None:
    await docker(*CREATE, "--name", "web", "--update-monitor", "1ms", "busybox", "sleep", "9")
    await settled(docker, "web", 1)
    first = docker.controller.get_service("web").instances[0].instance.id
    await docker(*UPDATE, "--force", "web")
    await until(lambda: _only(docker) not in (None, first), deadline=DEADLINE, what="another task")
    assert (await docker.inspect("service", "web"))["Spec"]["TaskTemplate"]["ForceUpdate"] == 1


def _only(docker: DockerFleet) -> Any:
    infos = docker.controller.get_service("web").instances
    running = [i for i in infos if i.instance.desired == "running" and i.status.phase == "running"]
    return running[0].instance.id if len(running) == 1 else None


async def test_what_docker_can_not_say_outlives_its_update(docker: DockerFleet) -> None:
    await docker("network", "create", "-d", "overlay", "back")
    spec = ServiceSpec(
        name="web",
        container=ContainerSpec(
            image="busybox",
            args=("sleep", "9"),
            networks=(Attachment(network="back", priority=3, aliases=("www",)),),
            ports=(Publish(target=80, published=8080, mode="ingress", allow=("192.0.2.0/24",)),),
            health=HealthCheck(probe=HttpProbe(port=80, path="/up")),
            drain=7.0,
            shm_size=1 << 20,
        ),
        balance="source-hash",
    )
    stored = (await docker.controller.create_service(spec)).service.spec
    await docker(*UPDATE, "--replicas", "2", "web")
    after = docker.controller.get_service("web").service.spec
    assert after == replace(stored, mode=Replicated(replicas=2))
    await docker(*UPDATE, "--env-add", "A=b", "--publish-add", "9090:90", "--network-rm", "back", "web")
    last = docker.controller.get_service("web").service.spec
    assert last.balance == "source-hash" and last.container.health == spec.container.health
    assert last.container.env == {"A": "b"} and last.container.networks == ()
    assert last.container.ports == (*spec.container.ports, Publish(target=90, published=9090, mode="ingress"))


async def test_update_of_what_was_read_before_another_is_refused(docker: DockerFleet) -> None:
    await docker(*CREATE, "--name", "web", "busybox", "sleep", "9")
    await settled(docker, "web", 1)
    seen = await docker.inspect("service", "web")
    version, spec = seen["Version"]["Index"], seen["Spec"]
    info = docker.controller.get_service("web").service
    changed = replace(info.spec, labels={"first": "1"})
    await docker.controller.update_service("web", UpdateService(spec=changed))
    path = f"/v1.41/services/{seen['ID']}/update"
    for query in ({"version": str(version)}, {"version": str(version), "rollback": "previous"}):
        status, reply = await docker.call("POST", path, spec, **query)
        assert (status, "update out of sequence" in reply["message"]) == (409, True)
    assert docker.controller.get_service("web").service.spec.labels == {"first": "1"}
    for query in ({}, {"version": "x"}, {"version": "-1"}):
        assert (await docker.call("POST", path, spec, **query))[0] == 400
    node = (await docker.call("GET", "/nodes/host1"))[1]
    path, spec = f"/nodes/{node['ID']}/update", {"Labels": {"z": "1"}, "Availability": "active"}
    good, stale = str(node["Version"]["Index"]), str(node["Version"]["Index"] + 7)
    assert (await docker.call("POST", path, spec, version=good))[0] == 200
    assert (await docker.call("POST", path, spec, version=stale))[0] == 409


async def test_fields_that_can_not_be_done_are_named(docker: DockerFleet) -> None:
    cases = {
        (
            "--placement-pref",
            "spread=node.labels.zone",
        ): "TaskTemplate.Placement.Preferences: is not supported",
        ("--generic-resource", "gpu=1"): "TaskTemplate.Resources.Reservations.GenericResources: is not",
        ("--mode", "global-job"): "Mode: jobs are not supported",
        ("--hostname", "{{.Node.Hostname}}"): "TaskTemplate.ContainerSpec.Hostname: templates",
        ("--log-driver", "syslog"): "TaskTemplate.LogDriver.Name: logging driver 'syslog' is not supported",
        ("--constraint", "node.role==manager"): "fits no node",
        ("--constraint", "engine.labels.a==b"): "Labels of a host itself are among node.labels",
        ("--constraint", "colour==red"): "TaskTemplate.Placement.Constraints[0]: invalid constraint",
        ("--network", "nobody"): "No such network: nobody",
        ("--limit-memory", "1"): "TaskTemplate.Resources.Limits.MemoryBytes",
    }
    for words, told in cases.items():
        said = await docker.refusal(*CREATE, "--name", "web", *words, "busybox")
        assert told in said, (words, said)
    assert await docker("service", "ls", "-q") == ""
    await docker(*CREATE, "--name", "web", "busybox")
    again = await docker.refusal(*CREATE, "--name", "web", "busybox")
    assert "name conflicts with an existing object: service web already exists" in again


async def test_service_takes_the_name_of_one_that_is_on_its_way_out(docker: DockerFleet) -> None:
    await docker(*CREATE, "--name", "web", "busybox", "sleep", "9")
    await settled(docker, "web", 1)
    for host in docker.agents.hosts.values():
        host.slow = True
    await docker("service", "rm", "web")
    making = asyncio.ensure_future(docker.attempt(*CREATE, "--name", "web", "busybox", "sleep", "8"))
    await until(lambda: docker.controller.get_service("web").service.removed, deadline=DEADLINE, what="it")
    assert not making.done()
    for agent in docker.agents.agents.values():
        agent.host.slow = False
        await agent.work()
    assert (await making).code == 0
    assert docker.controller.get_service("web").service.spec.container.args == ("sleep", "8")


async def test_states_of_tasks_are_dockers(docker: DockerFleet) -> None:
    for host in docker.agents.hosts.values():
        host.fails["broken:1"] = "no such program"
        host.exits["brief:1"] = 0
    await docker(*CREATE, "--name", "broken", "broken:1")
    await docker(*CREATE, "--name", "brief", "--restart-condition", "none", "brief:1")
    await docker(*CREATE, "--name", "nowhere", "--constraint", "node.labels.a==b", "busybox")
    expected = {"broken": "Rejected", "brief": "Complete", "nowhere": "Pending"}
    for name, word in expected.items():
        async with asyncio.timeout(DEADLINE):
            while word not in await docker("service", "ps", name, "--format", "{{.CurrentState}}"):
                pass
    said = await docker("service", "ps", "--no-trunc", "broken", "nowhere", "--format", "{{.Error}}")
    assert "no such program" in said and "2 not matching node.labels.a==b" in said
    brief = await docker("service", "ps", "-q", "--no-trunc", "brief")
    status, task = await docker.call("GET", f"/v1.41/tasks/{brief[:12]}")
    assert (status, task["ID"], task["Slot"]) == (200, brief, 1)
    assert task["Status"]["ContainerStatus"]["ExitCode"] == 0
    assert (await docker.call("GET", "/tasks/nobody"))[1] == {"message": "task nobody not found"}


async def test_nodes_are_listed_labelled_drained_and_removed(docker: DockerFleet) -> None:
    rows = await docker("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}}")
    assert rows.splitlines() == ["host1 Ready Active", "host2 Ready Active"]
    await docker("node", "update", "--label-add", "zone=a", "--availability", "drain", "host1")
    spec = docker.controller.get_host("host1").host.spec
    assert spec.labels == {"zone": "a"} and spec.availability == "drain"
    assert (
        await docker("node", "ls", "-q", "-f", "node.label=zone=a")
        == docker.controller.get_host("host1").host.id
    )
    await docker("node", "update", "--label-rm", "zone", "--availability", "active", "host1")
    assert docker.controller.get_host("host1").host.spec.labels == {}
    await docker(*CREATE, "--name", "all", "--mode", "global", "busybox")
    await settled(docker, "all", 2)
    assert (await docker("node", "ps", "host2", "--format", "{{.Name}}")).startswith("all.")
    assert "every node is a worker" in await docker.refusal("node", "promote", "host1")
    assert "is not down" in await docker.refusal("node", "rm", "host1")
    await docker("node", "rm", "--force", "host1")
    assert await docker("node", "ls", "--format", "{{.Hostname}}") == "host2"
    assert "No such node: host1" in await docker.refusal("node", "inspect", "host1")


async def test_fleet_is_a_swarm_that_is_neither_begun_nor_left(docker: DockerFleet) -> None:
    told = {
        ("swarm", "init"): "already part of a swarm",
        ("swarm", "join", "--token", "x", "192.0.2.1:2377"): "flota token create",
        ("swarm", "leave", "--force"): "flota node rm",
        ("swarm", "update", "--task-history-limit", "3"): "flota settings",
        ("secret", "ls"): "/secrets is not supported",
        ("config", "ls"): "/configs is not supported",
        ("plugin", "ls"): "/plugins is not supported",
        ("secret", "create", "a", "/dev/null"): "/secrets/create is not supported",
    }
    for words, said in told.items():
        assert said in await docker.refusal(*words), words
    for path in ("/secrets/nobody", "/configs/nobody", "/plugins/a/b/json"):
        assert (await docker.call("GET", path))[0] == 501
    swarm = (await docker.call("GET", "/v1.41/swarm"))[1]
    assert swarm["ID"] == docker.controller.info().fleet_id and swarm["Version"]["Index"] > 0
    async with docker.session.head("http://docker/_ping") as reply:
        assert reply.headers["Swarm"] == "active/manager"
