"""The stock docker command against a host's own socket, over fakes: no controller is anywhere."""

from __future__ import annotations

import stat
import time
from pathlib import Path

from agent.runtime.fake import Program
from model.status import Phase
from tests.support.agentlab import IMAGE, AgentLab, ident, instance, phase, view
from tests.support.hostdocker import LOOSE, HostDocker, host_docker

NONE = (*LOOSE, "--network", "none")


def _lab(folder: Path) -> AgentLab:
    lab = AgentLab(folder)
    lab.runtime.programs |= {("say",): Program(code=3, stdout=b"hello\n"), ("cat",): Program(echo=True)}
    return lab


async def test_own_socket_is_for_its_owner_and_group_and_goes_with_the_agent(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        assert stat.S_IMODE(Path(docker.socket).stat().st_mode) == 0o660
    assert not Path(docker.socket).exists()


async def test_own_container_is_run_listed_stopped_started_and_removed(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        made = await docker("run", "-d", "--name", "box", *NONE, IMAGE, "serve")
        assert await docker("ps", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}") == (
            f"{made} box running"
        )
        seen = await docker.inspect("box")
        assert seen["State"]["Running"] and seen["Node"]["Name"] == "lab"
        assert seen["HostConfig"]["NetworkMode"] == "none"
        await docker("restart", "-t", "1", "box")
        await docker("pause", "box")
        assert (await docker.inspect("box"))["State"]["Paused"]
        await docker("unpause", "box")
        await docker("rename", "box", "crate")
        await docker("stop", "-t", "1", "crate")
        assert await docker("ps", "-q") == ""
        await docker("start", "crate")
        assert "is running" in await docker.refusal("rm", "crate")
        await docker("rm", "-f", "crate")
        assert await docker("ps", "-aq") == ""
        assert lab.leaks() == {} and not docker.agent.context.own


async def test_own_container_in_the_foreground_gives_its_output_and_exit_code(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        done = await docker.attempt("run", "--rm", *NONE, IMAGE, "say")
        assert (done.code, done.stdout) == (3, b"hello\n")
        assert await docker("ps", "-aq") == ""
        assert lab.leaks() == {}


async def test_own_container_is_executed_in_and_its_log_is_read(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        await docker("run", "-d", "--name", "box", *NONE, IMAGE, "serve")
        assert (await docker.attempt("exec", "box", "say")).code == 3
        await docker("run", "-d", "--name", "said", *NONE, IMAGE, "say")
        assert await docker("wait", "said") == "3"
        assert await docker("logs", "said") == "hello"


async def test_own_containers_and_their_names_outlive_the_agent(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        made = await docker("run", "-d", "--name", "box", *NONE, IMAGE, "serve")
    async with host_docker(lab) as docker:
        assert await docker("ps", "-q", "--no-trunc") == made
        assert "already in use" in await docker.refusal("create", "--name", "box", *NONE, IMAGE, "serve")


async def test_containers_of_the_fleet_are_looked_into_and_not_changed(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        await docker.agent.take_view(view(instance()))
        await phase(docker.agent, 1, Phase.RUNNING)
        assert await docker("ps", "--format", "{{.Names}}") == "box1"
        assert (await docker.attempt("exec", "box1", "say")).code == 3
        before = docker.agent.context.view
        for words in (("stop",), ("restart",), ("pause",), ("rm", "-f"), ("update", "--pids-limit", "9")):
            assert "belongs to the fleet" in await docker.refusal(*words, "box1")
        assert "belongs to the fleet" in await docker.refusal("rename", "box1", "mine")
        assert "already in use" in await docker.refusal("create", "--name", "box1", *NONE, IMAGE, "serve")
        assert docker.agent.context.view is before
        assert docker.agent.context.records[ident(1)].running


async def test_own_container_on_the_bridge_has_an_address_once_the_fleet_was_heard(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        assert "not heard" in await docker.refusal("create", *LOOSE, IMAGE, "serve")
        await docker.agent.take_view(view())
        await docker("run", "-d", "--name", "box", *LOOSE, "-p", "8080:80", IMAGE, "serve")
        assert (await docker.inspect("box"))["NetworkSettings"]["IPAddress"] == "10.9.0.2"
        assert "8080" in await docker("port", "box")
        assert "Networks are the fleet's" in await docker.refusal(
            "create", *LOOSE, "--network", "blue", IMAGE
        )


async def test_own_container_that_is_to_be_elsewhere_is_refused(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        refusal = await docker.refusal("create", *NONE, "--label", "flota.node=n9", IMAGE, "serve")
        assert "the socket of host lab alone" in refusal
        await docker("create", *NONE, "--label", "flota.node=lab", IMAGE, "serve")


async def test_prune_takes_own_containers_alone(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        await docker.agent.take_view(view(instance(args=("say",))))
        await phase(docker.agent, 1, Phase.EXITED)
        await docker("run", "-d", "--name", "said", *NONE, IMAGE, "say")
        await docker("wait", "said")
        await docker("container", "prune", "-f")
        assert await docker("ps", "-a", "--format", "{{.Names}}") == "box1"


async def test_images_and_volumes_of_the_host_are_worked_with(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        assert (await docker("images", "--format", "{{.Repository}}:{{.Tag}}")).split() == [IMAGE]
        await docker("tag", IMAGE, "other:2")
        seen = [await docker.inspect("image", name) for name in (IMAGE, "other:2")]
        assert seen[0]["Id"] == seen[1]["Id"]
        await docker("volume", "create", "data")
        await docker("run", "-d", "--name", "box", *NONE, "-v", "data:/d", IMAGE, "serve")
        assert "in use" in await docker.refusal("volume", "rm", "data")
        await docker("rm", "-f", "box")
        await docker("volume", "rm", "data")
        assert await docker("volume", "ls", "-q") == ""


async def test_networks_that_stand_on_the_host_are_shown(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        await docker.agent.take_view(view())
        await docker("run", "-d", "--name", "box", *LOOSE, IMAGE, "serve")
        assert (await docker("network", "ls", "--format", "{{.Name}}")).split() == ["bridge", "host", "none"]
        on_it = (await docker.inspect("network", "bridge"))["Containers"]
        assert [one["Name"] for one in on_it.values()] == ["box"]
        for words in (("rm", "bridge"), ("disconnect", "bridge", "box"), ("create", "blue")):
            assert await docker.refusal("network", *words)
        assert (await docker.inspect("box"))["NetworkSettings"]["IPAddress"]


async def test_wait_and_attach_of_one_that_ends_at_once_lose_nothing(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        for _ in range(20):
            done = await docker.attempt("run", "--rm", *NONE, IMAGE, "say")
            assert (done.code, done.stdout) == (3, b"hello\n")
        assert lab.leaks() == {} and not docker.agent.telling.waits._looks


async def test_own_socket_says_that_it_is_no_manager(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        assert await docker("info", "--format", "{{.Name}} {{.Swarm.ControlAvailable}}") == "lab false"
        for words in (("node", "ls"), ("service", "ls"), ("service", "create", IMAGE)):
            assert "not a swarm manager" in await docker.refusal(*words)
        assert (await docker.call("GET", "/tasks"))[0] == 503
        assert "the fleet's" in await docker.refusal("network", "create", "blue")


async def test_own_containers_are_told_of_by_events(tmp_path: Path) -> None:
    lab = _lab(tmp_path)
    async with host_docker(lab) as docker:
        assert (await docker.attempt("run", "--rm", "--name", "box", *NONE, IMAGE, "say")).code == 3
        told = await _events(docker)
        assert told == ["create", "start", "die", "destroy"]


async def _events(docker: HostDocker) -> list[str]:
    soon = str(int(time.time()) + 1)
    said = await docker("events", "--since", "1", "--until", soon, "--format", "{{.Type}} {{.Action}}")
    return [line.partition(" ")[2] for line in said.splitlines() if line.startswith("container ")]
