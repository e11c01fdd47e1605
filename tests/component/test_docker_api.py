"""The Docker API over a real socket with a fleet in memory behind it: lives, streams, what enemies send."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile

import pytest

from model.status import Phase
from tests.support.dockerclient import DEADLINE, Docker, frames
from tests.support.waiting import until


async def test_ping_and_every_reply_tell_which_versions_are_spoken(docker: Docker) -> None:
    for method, body in (("GET", b"OK"), ("HEAD", b"")):
        async with docker.session.request(method, "http://docker/_ping") as reply:
            assert (reply.status, await reply.read()) == (200, body)
            assert reply.headers["Api-Version"] == "1.51" and reply.headers["Ostype"] == "linux"
            assert reply.headers["Swarm"] == "active/manager" and reply.headers["Server"].startswith(
                "Docker/"
            )
    async with docker.session.get("http://docker/v1.41/containers/nobody/json") as reply:
        assert reply.status == 404 and reply.headers["Api-Version"] == "1.51"
        assert await reply.json() == {"message": "No such container: nobody"}
    assert (await docker.ok("GET", "/version"))["MinAPIVersion"] == "1.24"


async def test_container_is_made_listed_inspected_and_removed(docker: Docker) -> None:
    labels = {"com.docker.compose.project": "p"}
    ident = await docker.run("sleep", "9", name="web", Labels=labels, HostConfig={"Memory": 64 << 20})
    [line] = await docker.ok(
        "GET", '/containers/json?filters={"label":{"com.docker.compose.project=p":true}}'
    )
    assert (line["Id"], line["Names"], line["State"]) == (ident, ["/web"], "running")
    seen = await docker.ok("GET", f"/containers/{ident[:12]}/json")
    assert seen["Config"]["Labels"] == labels and seen["HostConfig"]["Memory"] == 64 << 20
    assert seen["Node"]["Name"] == line["Labels"]["flota.node"]
    assert await docker.call("POST", "/containers/web/start") == (304, b"")
    status, said = await docker.call("DELETE", "/containers/web")
    assert status == 409 and 'cannot remove container "/web": container is running' in said["message"]
    assert await docker.call("POST", "/containers/web/stop?t=0") == (204, b"")
    assert docker.fleet.stops[0].grace == 0
    assert await docker.call("POST", "/containers/web/stop") == (304, b"")
    assert await docker.call("DELETE", "/containers/web?v=1") == (204, b"")
    assert await docker.ok("GET", "/containers/json?all=true") == []


async def test_taken_name_and_missing_image_are_told_in_dockers_words(docker: Docker) -> None:
    ident = await docker.create("true", name="web")
    status, said = await docker.call(
        "POST", "/containers/create?name=web", {"Image": "box:1", "Cmd": ["true"]}
    )
    assert status == 409
    assert said["message"].startswith(
        f'Conflict. The container name "/web" is already in use by container "{ident}".'
    )
    missing = {"Image": "nothing", "Cmd": ["true"]}
    assert await docker.call("POST", "/containers/create", missing) == (
        404,
        {"message": "No such image: nothing:latest"},
    )
    other = await docker.create("true")
    status, said = await docker.call("POST", f"/containers/{other}/rename?name=web")
    assert status == 409 and said["message"].startswith("Conflict. The container name")


async def test_image_that_only_some_hosts_have_and_no_registry_keeps_the_container_there(
    docker: Docker,
) -> None:
    hosts = list(docker.fleet.hosts.values())
    hosts[1]._add("mine:1")
    await docker.create("true", Image="mine:1")
    constraints = docker.fleet.created[-1].placement.constraints
    assert set(constraints) == {f"node.id!={hosts[0].id}", f"node.id!={hosts[2].id}"}


async def test_host_is_chosen_by_label_and_by_header(docker: Docker) -> None:
    await docker.create("true", Labels={"flota.node": "n2"})
    assert docker.fleet.created[-1].host == "n2"
    body = {"Image": "box:1", "Cmd": ["true"]}
    await docker.ok("POST", "/containers/create", body, headers={"X-PortainerAgent-Target": "n3"})
    assert docker.fleet.created[-1].host == "n3"


async def test_volumes_of_another_container_are_shared_on_its_host(docker: Docker) -> None:
    first = await docker.create(
        "true", name="first", HostConfig={"Binds": ["/a:/x", "vol:/y:ro"]}, Volumes={"/z": {}}
    )
    host, container = docker.fleet._find(first)
    await container.become(volumes=(("f" * 64, "/z"), ("g" * 64, "/of-image")))
    await docker.create("true", HostConfig={"VolumesFrom": ["first:ro"], "Binds": ["mine:/y"]})
    made = docker.fleet.created[-1]
    assert made.host == host.name
    assert {(m.source, m.target, m.read_only) for m in made.spec.mounts} == {
        ("mine", "/y", False), ("/a", "/x", True), ("f" * 64, "/z", True), ("g" * 64, "/of-image", True),
    }  # fmt: skip
    other = next(h.name for h in docker.fleet.hosts.values() if h is not host)
    wish = {"Image": "box:1", "Labels": {"flota.node": other}, "HostConfig": {"VolumesFrom": ["first"]}}
    status, said = await docker.call("POST", "/containers/create", wish)
    assert status == 400 and f"is on {host.name}, not {other}" in said["message"]


async def test_wait_answers_its_head_before_the_container_is_started(docker: Docker) -> None:
    ident = await docker.create("exit", "7")
    url = f"http://docker/v1.41/containers/{ident}/wait?condition=next-exit"
    async with asyncio.timeout(DEADLINE):
        async with docker.session.post(url) as reply:
            assert reply.status == 200
            await docker.ok("POST", f"/containers/{ident}/start")
            assert await reply.json() == {"StatusCode": 7}
    assert (await docker.call("POST", f"/containers/{ident}/wait?condition=odd"))[0] == 400


async def test_program_that_is_not_there_fails_the_start_with_its_words(docker: Docker) -> None:
    ident = await docker.create("nosuch")
    status, said = await docker.call("POST", f"/containers/{ident}/start")
    assert status == 400 and "executable file not found" in said["message"]
    assert (await docker.ok("GET", f"/containers/{ident}/json"))["State"]["ExitCode"] == 127


async def test_logs_are_frames_or_plain_bytes_of_a_terminal(docker: Docker) -> None:
    ident = await docker.run("sh", "-c", "echo out;err bad")
    await docker.ok("POST", f"/containers/{ident}/wait")
    data = await docker.ok("GET", f"/containers/{ident}/logs?stdout=1&stderr=1")
    assert frames(data) == [(1, b"out\n"), (2, b"bad\n")]
    terminal = await docker.run("echo", "shown", Tty=True)
    await docker.ok("POST", f"/containers/{terminal}/wait")
    assert await docker.ok("GET", f"/containers/{terminal}/logs?stdout=1") == b"shown\n"
    status, said = await docker.call("GET", f"/containers/{ident}/logs")
    assert status == 400 and "choose at least one stream" in said["message"]
    for version, kind in (("1.41", "raw-stream"), ("1.42", "multiplexed-stream")):
        url = f"http://docker/v{version}/containers/{ident}/logs?stdout=1"
        async with docker.session.get(url) as reply:
            assert reply.content_type == f"application/vnd.docker.{kind}"


@pytest.mark.parametrize("upgrade", [True, False])
async def test_attach_carries_input_to_its_half_close_and_output_to_its_end(
    docker: Docker, upgrade: bool
) -> None:
    ident = await docker.create("cat", OpenStdin=True, StdinOnce=True)
    path = f"/containers/{ident}/attach?stream=1&stdin=1&stdout=1&stderr=1"
    async with docker.hijack(path, upgrade=upgrade) as (head, reader, writer):
        start = b"HTTP/1.1 101 UPGRADED\r\n" if upgrade else b"HTTP/1.1 200 OK\r\n"
        assert head.startswith(start) and b"application/vnd.docker.multiplexed-stream" in head
        assert (b"Upgrade: tcp" in head) is upgrade
        await docker.ok("POST", f"/containers/{ident}/start")
        writer.write(b"one")
        async with asyncio.timeout(DEADLINE):
            assert frames(await reader.readexactly(11)) == [(1, b"one")]
            writer.write(b"two")
            writer.write_eof()
            assert frames(await reader.read()) == [(1, b"two")]


@pytest.mark.parametrize("pieces", [1, 7, 1000])
async def test_input_right_behind_the_request_is_not_lost(docker: Docker, pieces: int) -> None:
    ident = await docker.run("cat", OpenStdin=True, StdinOnce=True)
    reader, writer = await asyncio.open_unix_connection(docker.socket)
    path = f"/v1.42/containers/{ident}/attach?stream=1&stdin=1&stdout=1"
    asked = "Host: d\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 2"
    head = f"POST {path} HTTP/1.1\r\n{asked}\r\n\r\n{{}}"
    data = head.encode() + b"GET / HTTP/1.1\r\n\r\n early"
    for at in range(0, len(data), pieces):
        writer.write(data[at : at + pieces])
        await asyncio.sleep(0)
    writer.write_eof()
    async with asyncio.timeout(DEADLINE):
        await reader.readuntil(b"\r\n\r\n")
        said = frames(await reader.read())
    assert b"".join(payload for _, payload in said) == b"GET / HTTP/1.1\r\n\r\n early"
    writer.close()


async def test_refused_upgrade_ends_its_connection_and_plain_requests_share_theirs(docker: Docker) -> None:
    reader, writer = await asyncio.open_unix_connection(docker.socket)
    ping = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
    writer.write(ping + ping)
    async with asyncio.timeout(DEADLINE):
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(2) == b"OK"
        upgrade = b"Upgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n"
        writer.write(b"POST /containers/nobody/attach?stream=1 HTTP/1.1\r\nHost: d\r\n" + upgrade + ping)
        rest = await reader.read()
    assert rest.startswith(b"HTTP/1.1 404") and rest.count(b"HTTP/1.1") == 1
    writer.close()


async def test_terminal_is_raw_resized_and_left_by_its_keys(docker: Docker) -> None:
    ident = await docker.run("size", Tty=True, OpenStdin=True)
    path = f"/containers/{ident}/attach?stream=1&stdin=1&stdout=1"
    async with docker.hijack(path) as (head, reader, _):
        assert b"application/vnd.docker.raw-stream" in head
        await docker.ok("POST", f"/containers/{ident}/resize?h=24&w=80")
        async with asyncio.timeout(DEADLINE):
            assert await reader.read() == b"24 80\n"
    shell = await docker.run("cat", Tty=True, OpenStdin=True)
    path = f"/containers/{shell}/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,x"
    async with docker.hijack(path) as (_, reader, writer):
        writer.write(b"\x01y")
        async with asyncio.timeout(DEADLINE):
            assert await reader.readexactly(2) == b"\x01y"
            writer.write(b"z\x01x")
            assert await reader.read() in (b"", b"z")
    assert (await docker.ok("GET", f"/containers/{shell}/json"))["State"]["Running"]
    for bad in ("h=0&w=5", "h=70000&w=5", "h=a&w=b", ""):
        assert (await docker.call("POST", f"/containers/{shell}/resize?{bad}"))[0] == 400


async def test_streams_leave_nothing_behind_when_a_client_vanishes(docker: Docker) -> None:
    ident = await docker.run("cat", OpenStdin=True)
    for _ in range(30):
        async with docker.hijack(f"/containers/{ident}/attach?stream=1&stdin=1&stdout=1"):
            pass
    container = docker.fleet._find(ident)[1]
    assert container.status.phase is Phase.RUNNING, "its input is for whoever comes next"
    await until(lambda: all(s.closed for s in container.sessions), deadline=DEADLINE)
    await until(lambda: not docker.state.sessions._writers, deadline=DEADLINE)
    assert all(pipe.writer.is_closing() for pipe in docker.fleet.pipes)


async def test_exec_is_made_started_and_inspected(docker: Docker) -> None:
    ident = await docker.run("sleep", "9", name="box")
    spec = {"Cmd": ["sh", "-c", "echo hi;exit 5"], "AttachStdout": True, "AttachStderr": True, "Env": ["A=b"]}
    exec_ = (await docker.ok("POST", "/containers/box/exec", spec))["Id"]
    async with docker.hijack(f"/exec/{exec_}/start", b'{"Detach":false,"Tty":false}') as (head, reader, _):
        assert head.startswith(b"HTTP/1.1 101")
        async with asyncio.timeout(DEADLINE):
            assert frames(await reader.read()) == [(1, b"hi\n")]
    seen = await docker.ok("GET", f"/exec/{exec_}/json")
    assert (seen["ExitCode"], seen["Running"], seen["ContainerID"]) == (5, False, ident)
    assert seen["ProcessConfig"]["entrypoint"] == "sh"
    status, said = await docker.call("POST", f"/exec/{exec_}/start", {})
    assert status == 409 and "has already run" in said["message"]
    detached = (await docker.ok("POST", "/containers/box/exec", {"Cmd": ["exit", "3"]}))["Id"]
    await docker.ok("POST", f"/exec/{detached}/start", {"Detach": True})
    await until(lambda: docker.state.execs.get(detached).exit_code == 3, deadline=DEADLINE)
    assert await docker.call("GET", "/exec/nothing/json") == (
        404,
        {"message": "No such exec instance: nothing"},
    )
    await docker.ok("POST", "/containers/box/stop")
    status, said = await docker.call("POST", "/containers/box/exec", spec)
    assert status == 409 and "is not running" in said["message"]


async def test_files_figures_and_changes_have_dockers_shapes(docker: Docker) -> None:
    ident = await docker.run("sleep", "9", name="box")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("new")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    put = await docker.call("PUT", "/containers/box/archive?path=/", data=buffer.getvalue())
    assert put[0] == 200, put
    kept = "/containers/box/archive?path=/&noOverwriteDirNonDir=true"
    assert (await docker.call("PUT", kept, data=buffer.getvalue()))[0] == 200
    host, _ = docker.fleet._find(ident)
    assert host.extracts == [("/", True), ("/", False)]
    async with docker.session.head("http://docker/v1.41/containers/box/archive?path=/none") as reply:
        assert reply.status == 404
    changes = await docker.ok("GET", f"/containers/{ident}/changes")
    assert changes[0] == {"Path": "/etc", "Kind": 0} and changes[1]["Kind"] == 1
    assert (await docker.ok("GET", "/containers/box/top"))["Titles"] == ["PID", "CMD"]
    assert (await docker.call("GET", "/containers/box/top?ps_args=aux"))[0] == 501
    figures = await docker.ok("GET", "/containers/box/stats?stream=false")
    assert figures["memory_stats"]["usage"] == 1 << 20 and figures["precpu_stats"]["system_cpu_usage"] > 0
    lines = (await docker.session.get("http://docker/v1.41/containers/box/stats")).content
    async with asyncio.timeout(DEADLINE):
        assert json.loads(await lines.readline())["name"] == "/box"


async def test_pruned_are_those_that_do_not_run(docker: Docker) -> None:
    lives, never = await docker.run("sleep", "9"), await docker.create("true")
    gone = await docker.ok("POST", "/containers/prune")
    assert gone == {"ContainersDeleted": [never], "SpaceReclaimed": 1234}
    assert [one["Id"] for one in await docker.ok("GET", "/containers/json?all=1")] == [lives]


async def test_sizes_are_told_where_they_are_asked_for(docker: Docker) -> None:
    idents = [await docker.run("sleep", "9") for _ in range(2)]
    [one, other] = await docker.ok("GET", "/containers/json?size=1")
    assert {one["Id"], other["Id"]} == set(idents) and one["SizeRw"] == 1234
    assert one["SizeRootFs"] >= one["SizeRw"]
    assert "SizeRw" not in (await docker.ok("GET", "/containers/json"))[0]
    assert (await docker.ok("GET", f"/containers/{idents[0]}/json?size=1"))["SizeRw"] == 1234
    assert "SizeRw" not in await docker.ok("GET", f"/containers/{idents[0]}/json")
    used = (await docker.ok("GET", "/system/df?type=container"))["Containers"]
    assert [one["SizeRw"] for one in used] == [1234, 1234]


async def test_events_are_dockers_and_filtered(docker: Docker) -> None:
    data = await docker.ok("GET", '/events?since=1&until=2&filters={"event":["start"]}')
    [event] = [json.loads(line) for line in data.splitlines()] if isinstance(data, bytes) else [data]
    assert (event["Type"], event["Action"], event["status"], event["time"]) == (
        "container",
        "start",
        "start",
        1001,
    )
    assert event["Actor"]["Attributes"]["name"] == "web" and event["timeNano"] == 1001 * 10**9
    assert (await docker.call("GET", '/events?filters={"colour":["red"]}'))[0] == 400


async def test_info_counts_the_fleet(docker: Docker) -> None:
    await docker.run("sleep", "9")
    seen = await docker.ok("GET", "/info")
    assert (seen["Containers"], seen["ContainersRunning"], seen["NCPU"], seen["Images"]) == (1, 1, 6, 1)
    assert seen["Swarm"]["ControlAvailable"] and seen["DriverStatus"][0] == ["Nodes", "3"]
