"""Junk in paths, queries and bodies of networks, volumes and the swarm family: one clear line, no 500."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from yarl import URL

from api.docker.route import Route
from api.docker.table import NETWORKS, SWARM, VOLUMES
from tests.support.dockerfleet import DockerFleet, docker_fake, docker_fleet

ROUTES = (*NETWORKS, *VOLUMES, *SWARM)
LISTS = ("/networks", "/services", "/tasks", "/nodes")
REFS = ("%2e%2e%2f%2e%2e%2fetc", "..%2f", "a%00b", "%ff", "x" * 3000, "%20", "*", "sha256:abc", "-1", "%2f")
FILTERS = (
    "x", "[]", "1", "null", '{"name": 1}', '{"name": {"a": 1}}', '{"name": [1]}', '{"": ["a"]}',
    '{"colour": ["red"]}', '{"dangling": ["maybe"]}', '{"label": ["="]}', "{" * 5000, '{"type": ["x"]}',
    '{"scope": ["x"]}', '{"role": ["x"]}', '{"desired-state": ["x"]}', '{"membership": ["x"]}',
)  # fmt: skip


@pytest.fixture
async def docker(tmp_path: Path) -> AsyncIterator[DockerFleet]:
    async with docker_fleet(tmp_path, hosts=1) as made:
        await made("network", "create", "front")
        yield made


async def test_junk_for_a_name_is_nobodys(docker: DockerFleet) -> None:
    await _nobodys(docker, (*NETWORKS, *SWARM))


async def test_junk_for_a_volumes_name_is_nobodys(tmp_path: Path) -> None:
    async with docker_fake(tmp_path) as docker:
        await _nobodys(docker, VOLUMES)


async def _nobodys(docker: DockerFleet, routes: Iterable[Route]) -> None:
    asked = [(r.method, r.path.replace("{name}", ref)) for r in routes for ref in REFS if "{name}" in r.path]
    assert len(asked) > 10
    for method, path in asked:
        body = {"Container": "web"} if method == "POST" else None
        url = URL(f"http://docker/v1.41{path}?version=1", encoded=True)
        async with docker.session.request(method, url, json=body) as reply:
            said = await reply.text()
            assert reply.status in (400, 404), (method, path, reply.status, said)
            assert len(said) < 5000


@pytest.mark.parametrize("path", LISTS)
async def test_junk_for_filters_is_one_clear_error(docker: DockerFleet, path: str) -> None:
    for text in FILTERS:
        status, reply = await docker.call("GET", path, filters=text)
        known = status == 200 and (text == "null" or '"label"' in text)
        assert known or (status == 400 and "invalid filter" in reply["message"]), (text, status, reply)


async def test_times_and_tails_of_logs_are_read_strictly(docker: DockerFleet) -> None:
    await docker("service", "create", "--no-resolve-image", "-d", "--name", "web", "busybox")
    path = "/services/web/logs"
    for query in ({}, {"stdout": "0"}, {"stdout": "1", "since": "x"}, {"stdout": "1", "until": "--1"}):
        assert (await docker.call("GET", path, **query))[0] == 400, query


async def test_bodies_that_are_no_objects_change_nothing(tmp_path: Path) -> None:
    json_ = "application/json"
    wrong = ((b"", json_), (b"[]", json_), (b"{", json_), (b"{}", "text/plain"), (b"a=b", "x-form"))
    async with docker_fake(tmp_path) as docker:
        asked = [(route, data, kind) for route in ROUTES if route.body for data, kind in wrong]
        for route, data, kind in asked:
            if not data and route.body is not None and route.body.optional:
                continue
            path = f"http://docker{route.path.replace('{name}', 'front')}?version=1"
            headers = {"Content-Type": kind}
            async with docker.session.request(route.method, path, data=data, headers=headers) as reply:
                assert reply.status == 400, (route.path, data, reply.status)
        assert not docker.controller.networks and not docker.controller.services
        assert not any(host.volumes for host in docker.controller.hosts.values())
