"""The API over real sockets with a fleet in memory behind it: resources, strictness, streams, forwarding."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api.listen import serve_unix
from api.server import controller_app, runner
from model.errors import Damaged
from model.streams import STDERR, STDOUT, Unframer
from tests.support.fakeports import FakeFleet
from tests.support.waiting import until

DEADLINE = 10


class Api:
    """A client of one served fleet."""

    def __init__(self, fleet: FakeFleet, socket: str, session: aiohttp.ClientSession) -> None:
        self.fleet = fleet
        self.socket = socket
        self.session = session

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        if body is not None:
            more["json"] = body
        async with asyncio.timeout(DEADLINE):
            async with self.session.request(method, f"http://flota{path}", **more) as reply:
                text = await reply.text()
        return reply.status, json.loads(text) if text else None

    async def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        status, value = await self.call(method, path, body, **more)
        assert status < 300, value
        return value

    async def run(self, *args: str, name: str = "", **spec: Any) -> str:
        body = {"spec": {"image": "box:1", "args": args, **spec}, "name": name, "start": True}
        ident: str = (await self.ok("POST", "/v1/instances", body))["instance"]["id"]
        return ident


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    socket = str(tmp_path / "api.sock")
    async with FakeFleet() as fleet:
        app = runner(controller_app(fleet, fleet_id="fleet", ca="PEM"))
        await app.setup()
        await serve_unix(app, socket)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session:
            yield Api(fleet, socket, session)
        await app.cleanup()


def frames(data: bytes) -> list[tuple[int, bytes]]:
    return Unframer().feed(data)


async def test_container_is_created_listed_stopped_and_removed(api: Api) -> None:
    ident = await api.run("sleep", "9", name="web")
    listed = await api.ok("GET", "/v1/instances")
    assert [i["instance"]["name"] for i in listed] == ["web"]
    await api.ok("POST", "/v1/instances/web/stop", {"grace": 1.5, "signal": "INT"})
    assert api.fleet.stops[0].grace == 1.5
    waited = await api.ok("POST", f"/v1/instances/{ident[:12]}/wait?condition=stopped")
    assert waited["exit_code"] == 143
    assert await api.ok("GET", "/v1/instances") == []
    assert len(await api.ok("GET", "/v1/instances?all=true")) == 1
    await api.ok("DELETE", "/v1/instances/web?force=true")
    assert await api.call("GET", "/v1/instances/web") == (
        404,
        {"message": "no such container: web", "code": "not_found"},
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "says"),
    [
        ("GET", "/v1/instances?al=1", None, "al: unknown query parameter"),
        ("GET", "/v1/instances?all=1&all=0", None, "all: given more than once"),
        ("GET", "/v1/instances?limit=abc", None, "limit"),
        ("GET", "/v1/instances?limit=-1", None, "limit: -1 is out of range"),
        ("GET", "/v1/instances?limit=1000000000000", None, "out of range"),
        ("GET", "/v1/instances?filter=junk", None, "invalid filter 'junk'"),
        ("GET", "/v1/instances?filter=colour=red", None, "unknown filter 'colour'"),
        ("GET", "/v1/events?since=-1", None, "since"),
        ("POST", "/v1/instances/x/wait?condition=nothing", None, "condition"),
        ("POST", "/v1/instances", None, "the request body is missing"),
        ("POST", "/v1/instances", {"spec": {"image": "a", "imagge": 1}}, "spec.imagge: unknown field"),
        ("POST", "/v1/instances", {"spec": {"image": 1}}, "spec.image"),
        ("POST", "/v1/instances", {"spec": {"image": "box:1", "resources": {"memory": -5}}}, "memory"),
        ("POST", "/v1/instances", {"spec": None}, "spec"),
        ("POST", "/v1/networks", {"name": "x", "subnets": [{"cidr": "10.0.0.0/99"}]}, "10.0.0.0/99"),
        ("POST", "/v1/instances/x/start", {"a": 1}, "takes no body"),
    ],
)
async def test_bad_input_is_a_400_that_names_it_and_changes_nothing(
    api: Api, method: str, path: str, body: Any, says: str
) -> None:
    status, value = await api.call(method, path, body)
    assert status == 400 and says in value["message"], value
    assert api.fleet.created == [] and await api.ok("GET", "/v1/instances?all=1") == []


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe", b"{", b'{"spec": ' * 20000, b'{"spec":{"image":"\\ud800"}}', b'"x"', b"[]", b"spec=a"],
)
async def test_body_that_is_no_json_object_is_a_400(api: Api, data: bytes) -> None:
    status, value = await api.call(
        "POST", "/v1/instances", data=data, headers={"Content-Type": "application/json"}
    )
    assert status == 400 and value["code"] == "invalid_input"


async def test_body_of_another_kind_or_encoding_is_refused(api: Api) -> None:
    for headers in ({"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Encoding": "gzip"}):
        status, value = await api.call("POST", "/v1/instances", data=b"{}", headers=headers)
        assert status == 400 and "not" in value["message"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_above_the_limit_is_a_413(api: Api, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(1100):
            yield b" " * 1000

    data = pieces() if chunked else io.BytesIO(b" " * 1_100_000)
    status, value = await api.call("POST", "/v1/instances", data=data)
    assert status == 413 and "larger than 1048576 bytes" in value["message"]


async def test_unknown_path_and_method_are_told_as_errors(api: Api) -> None:
    assert (await api.call("GET", "/v9/instances"))[0] == 404
    assert (await api.call("GET", "/v1/instances/a/b/c"))[0] == 404
    assert (await api.call("PUT", "/v1/instances"))[0] == 405
    assert (await api.call("GET", "/v1/instances/..%2f..%2fetc"))[0] == 404


async def test_health_of_a_container_is_asked_of_its_host(api: Api) -> None:
    await api.run("sleep", "9", name="web")
    log = await api.ok("GET", "/v1/instances/web/health")
    assert log["log"] == [{"start": 1.0, "end": 2.0, "exit_code": 0, "output": "fine"}]
    assert (await api.call("GET", "/v1/instances/nobody/health"))[0] == 404


async def test_stale_update_of_a_service_is_a_409(api: Api) -> None:
    spec = {"name": "web", "container": {"image": "box:1", "args": ["sleep"]}}
    await api.ok("POST", "/v1/services", spec)
    assert (await api.ok("PUT", "/v1/services/web", {"spec": spec, "revision": 1}))["service"][
        "revision"
    ] == 2
    status, value = await api.call("PUT", "/v1/services/web", {"spec": spec, "revision": 1})
    assert status == 409 and value["code"] == "stale_revision"


async def test_logs_and_top_and_kill_reach_the_container_on_its_host(api: Api) -> None:
    await api.run("sh", "-c", "echo out; err oops; sleep 9", name="web", labels={"a": "b"})
    container = next(c for h in api.fleet.hosts.values() for c in h.containers.values())
    await until(lambda: len(container.program.output) == 2, deadline=DEADLINE)
    async with api.session.get("http://flota/v1/instances/web/logs") as reply:
        assert reply.status == 200
        assert frames(await reply.read()) == [(STDOUT, b"out\n"), (STDERR, b"oops\n")]
    assert (await api.ok("GET", "/v1/instances/web/top"))["rows"] == [["4242", "sleep"]]
    assert await api.ok("POST", "/v1/instances/web/kill?signal=KILL") is None
    assert (await api.ok("POST", "/v1/instances/web/wait"))["exit_code"] == 137
    status, value = await api.call("POST", "/v1/instances/web/kill")
    assert status == 409 and value["message"] == "container web is not running"


async def test_followed_logs_begin_at_once_and_end_with_the_container(api: Api) -> None:
    await api.run("sleep", "9", name="quiet")
    async with asyncio.timeout(DEADLINE):
        async with api.session.get("http://flota/v1/instances/quiet/logs?follow=1") as reply:
            assert reply.status == 200
            await api.ok("POST", "/v1/instances/quiet/stop")
            assert await reply.read() == b""


async def test_logs_of_a_silent_host_are_a_503_that_names_it(api: Api) -> None:
    ident = await api.run("sleep", "9", name="web")
    host = api.fleet.locate_instance(ident)[1]
    api.fleet.silent.add(host)
    status, value = await api.call("GET", "/v1/instances/web/logs")
    assert (status, value["message"]) == (503, "host n1 does not answer")


async def test_service_logs_are_merged_and_name_each_container(api: Api) -> None:
    spec = {"name": "web", "container": {"image": "box:1", "args": ["echo", "hi"]},
            "mode": {"mode": "replicated", "replicas": 3}}  # fmt: skip
    await api.ok("POST", "/v1/services", spec)
    await until(lambda: all(i.status.exit_code == 0 for i in api.fleet.list_instances()), deadline=DEADLINE)
    async with api.session.get("http://flota/v1/services/web/logs") as reply:
        found = sorted(frames(await reply.read()))
    assert found == [(STDOUT, f"web.{i}@n{i} | hi\n".encode()) for i in (1, 2, 3)]


async def test_images_are_pulled_on_all_hosts_or_on_one_with_progress(api: Api) -> None:
    async with api.session.post("http://flota/v1/images/pull?ref=alpine:3") as reply:
        lines = [json.loads(line) async for line in reply.content]
    assert {line["host"] for line in lines if line.get("image")} == {"n1", "n2", "n3"}
    listed = await api.ok("GET", "/v1/images?filter=reference=alpine")
    assert sorted(i["host"] for i in listed) == ["n1", "n2", "n3"]
    async with api.session.post("http://flota/v1/images/pull?ref=missing:1&host=n2") as reply:
        lines = [json.loads(line) async for line in reply.content]
    assert lines[-1]["host"] == "n2" and lines[-1]["error_code"] == "not_found"


async def test_an_image_is_copied_to_hosts_that_lack_it_with_a_ticket_for_each(api: Api) -> None:
    hosts = list(api.fleet.hosts.values())
    await api.session.post("http://flota/v1/images/pull?ref=alpine:3&host=n1")
    async with api.session.post("http://flota/v1/images/copy?ref=alpine:3&to=n1&to=n3") as reply:
        lines = [json.loads(line) async for line in reply.content]
    assert {line["host"] for line in lines if line.get("image")} == {"n1", "n3"}
    assert [len(host.copies) for host in hosts] == [0, 0, 1]
    [copy] = hosts[2].copies
    assert [peer.host for peer in copy.answer.peers] == [hosts[0].id]
    assert copy.answer.ticket.split() == [hosts[2].id[:4], copy.digest[:11]]


async def test_a_copy_of_what_nobody_has_changes_nothing(api: Api) -> None:
    async with api.session.post("http://flota/v1/images/copy?ref=nowhere:1") as reply:
        assert reply.status == 404 and "nowhere:1" in await reply.text()
    assert not any(host.copies for host in api.fleet.hosts.values())


async def test_upload_is_copied_to_every_host(api: Api) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(40):
            yield bytes([number]) * 50_000

    async with api.session.post("http://flota/v1/images/load", data=pieces()) as reply:
        lines = [json.loads(line) async for line in reply.content]
    assert {line["host"] for line in lines if line.get("image") == "loaded:1"} == {"n1", "n2", "n3"}
    sent = b"".join(bytes([n]) * 50_000 for n in range(40))
    assert [host.uploads for host in api.fleet.hosts.values()] == [[sent]] * 3


async def test_upload_goes_on_without_a_silent_host_and_says_so(api: Api) -> None:
    api.fleet.silent.add(list(api.fleet.hosts)[1])
    hosts = api.fleet.hosts
    api.fleet.ready_hosts = lambda: [(i, h.name) for i, h in hosts.items()]  # type: ignore[method-assign]
    async with api.session.post("http://flota/v1/images/import?ref=a:1", data=b"tar") as reply:
        lines = [json.loads(line) async for line in reply.content]
    ends = {line["host"]: line.get("error_code", "") for line in lines}
    assert ends == {"n1": "", "n2": "unavailable", "n3": ""}


async def test_volumes_are_made_on_all_hosts_and_listed_by_host(api: Api) -> None:
    await api.ok("POST", "/v1/volumes", {"spec": {"name": "data"}})
    await api.ok("POST", "/v1/volumes?host=n2", {"spec": {"name": "more"}})
    listed = await api.ok("GET", "/v1/volumes")
    assert [(v["host"], v["volume"]["name"]) for v in listed] == [
        ("n1", "data"), ("n2", "data"), ("n2", "more"), ("n3", "data")]  # fmt: skip
    assert len(await api.ok("GET", "/v1/volumes?host=n3")) == 1
    await api.ok("DELETE", "/v1/volumes/data")
    assert (await api.call("DELETE", "/v1/volumes/data"))[0] == 404
    assert await api.ok("POST", "/v1/volumes/prune") == {"n1": {}, "n2": {"more": 10}, "n3": {}}


async def test_images_that_a_host_cannot_tell_are_missed_with_a_warning(api: Api) -> None:
    hosts = api.fleet.hosts
    api.fleet.ready_hosts = lambda: [(i, h.name) for i, h in hosts.items()]  # type: ignore[method-assign]
    api.fleet.silent.add(list(hosts)[2])
    async with api.session.get("http://flota/v1/images") as reply:
        assert [i["host"] for i in await reply.json()] == ["n1", "n2"]
        assert reply.headers["Flota-Warning"] == "n3: host n3 does not answer"


async def test_image_in_use_is_not_removed_and_the_host_is_named(api: Api) -> None:
    await api.run("sleep", "9", name="web")
    status, value = await api.call("DELETE", "/v1/images/box:1")
    assert (status, value["message"]) == (409, "n1: image box:1 is used by container web")


async def test_events_and_stats_are_lines_of_json(api: Api) -> None:
    async with asyncio.timeout(DEADLINE):
        async with api.session.get("http://flota/v1/events?filter=event=start&filter=event=die") as reply:
            first = json.loads(await reply.content.readline())
            assert (first["action"], json.loads(await reply.content.readline())["action"]) == ("start", "die")
        await api.run("sleep", "9", name="web")
        async with api.session.get("http://flota/v1/stats?ref=web&stream=1") as reply:
            lines = [json.loads(line) async for line in reply.content]
    assert [line[0]["host"] for line in lines] == ["n1"] * 3
    assert (await api.call("GET", "/v1/stats?ref=nosuch"))[0] == 404


async def test_openapi_document_names_every_route(api: Api) -> None:
    from api.routes.table import CONTROLLER

    document = await api.ok("GET", "/v1/openapi.json")
    assert document["openapi"] == "3.1.0"
    named = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert named == {(route.method, route.path) for route in CONTROLLER} | {("GET", "/v1/openapi.json")}
    assert set(document["components"]["schemas"]) >= {"InstanceInfo", "ContainerSpec", "ErrorBody"}


async def test_failure_that_nobody_foresaw_is_a_500_without_traceback(api: Api) -> None:
    def broken() -> None:
        raise ZeroDivisionError("secret detail")

    api.fleet.info = broken  # type: ignore[method-assign,assignment]
    status, value = await api.call("GET", "/v1/info")
    assert status == 500 and "secret" not in json.dumps(value) and value["message"] == "internal error"


async def test_command_goes_on_when_its_client_vanishes(api: Api) -> None:
    began, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(ref: str, replicas: int) -> Any:
        began.set()
        await go_on.wait()
        done.set()
        return api.fleet.list_services()

    api.fleet.scale_service = slow  # type: ignore[method-assign,assignment]
    _, writer = await asyncio.open_unix_connection(api.socket)
    writer.write(
        b"POST /v1/services/web/scale?replicas=2 HTTP/1.1\r\nHost: flota\r\nContent-Length: 0\r\n\r\n"
    )
    async with asyncio.timeout(DEADLINE):
        await began.wait()
        writer.close()
        await writer.wait_closed()
        go_on.set()
        await done.wait()


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_upload_that_breaks_off_reaches_no_host_as_whole(api: Api, turns: int) -> None:
    """So many turns of the loop after it began: while hosts are called, or when some of it is there."""
    _, writer = await asyncio.open_unix_connection(api.socket)
    writer.write(b"POST /v1/images/load HTTP/1.1\r\nHost: flota\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    tasks = asyncio.all_tasks()
    for _ in range(turns):
        await asyncio.sleep(0)
    writer.close()
    await until(lambda: asyncio.all_tasks() <= tasks, deadline=DEADLINE)
    assert [host.uploads for host in api.fleet.hosts.values()] == [[], [], []]


async def test_upload_that_every_host_refuses_ends_before_it_is_sent(api: Api) -> None:
    async def refuse(chunks: AsyncIterator[bytes], platform: str = "") -> AsyncIterator[Any]:
        if chunks:
            raise Damaged("not an archive")
        yield None

    for host in api.fleet.hosts.values():
        host.load_images = refuse  # type: ignore[method-assign]
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b"x" * 65536

    async with asyncio.timeout(DEADLINE):
        async with api.session.post("http://flota/v1/images/load", data=endless()) as reply:
            lines = [json.loads(line) async for line in reply.content]
    assert sorted((line["host"], line["error_code"]) for line in lines) == [
        ("n1", "damaged"), ("n2", "damaged"), ("n3", "damaged")]  # fmt: skip
