"""Images by the Docker API over a fleet of fakes: raw requests, and the stock client."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from model.api import CreateInstance
from model.image import HistoryEntry, ImageConfig, ImageRecord
from model.registries import Login
from model.spec import ContainerSpec
from tests.support.dockersocket import DockerSocket, docker_socket
from tests.support.fakehost import IMAGE_ID

BOX = IMAGE_ID.removeprefix("sha256:")[:12]
OTHER = "sha256:" + "cd" * 32


@pytest.fixture
async def docker(tmp_path: Path) -> AsyncIterator[DockerSocket]:
    async with docker_socket(tmp_path) as served:
        yield served


def rich(docker: DockerSocket) -> None:
    """The image of all hosts, with what an image can have; n2 has one more, without a name."""
    record = ImageRecord(
        id=IMAGE_ID,
        names=("docker.io/library/box:1",),
        digests=(f"docker.io/library/box@{OTHER}",),
        layers=("sha256:aa", "sha256:bb"),
        layer_sizes=(100, 20),
        size=120,
        created=1_700_000_000.5,
        config=ImageConfig(cmd=("sh",), env=("A=b",), labels={"x": "y"}, exposed_ports=("80/tcp",)),
        history=(
            HistoryEntry(created="2023-01-01T00:00:00.123456789Z", created_by="ADD file"),
            HistoryEntry(created_by="CMD sh", empty_layer=True),
            HistoryEntry(created_by="RUN x", comment="done"),
        ),
    )
    for host in docker.fleet.hosts.values():
        host.images = {"docker.io/library/box:1": record, "box:1": record}
    second = list(docker.fleet.hosts.values())[1]
    second.images["nameless"] = replace(
        record,
        id=OTHER,
        names=(),
        digests=(),
        layers=("sha256:aa",),
        layer_sizes=(100,),
        size=100,
        created=5.0,
    )


async def test_list_shows_each_image_of_the_fleet_once_and_where_it_is(docker: DockerSocket) -> None:
    rich(docker)
    found = (await docker.ask("GET", "/images/json")).json
    assert [(i["Id"], i["RepoTags"], i["Nodes"]) for i in found] == [
        (IMAGE_ID, ["box:1"], ["n1", "n2", "n3"]),
        (OTHER, [], ["n2"]),
    ]
    first = found[0]
    assert first["RepoDigests"] == [f"box@{OTHER}"] and first["Created"] == 1_700_000_000
    assert first["Containers"] == 0 and first["SharedSize"] == -1 and "VirtualSize" not in first
    shared = (await docker.ask("GET", "/v1.42/images/json", query={"shared-size": 1})).json
    assert [i["SharedSize"] for i in shared] == [100, 100]
    assert shared[1]["RepoTags"] == ["<none>:<none>"] and shared[1]["Containers"] == -1
    assert shared[0]["VirtualSize"] == 120


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ('{"dangling": ["true"]}', [OTHER]),
        ('{"dangling": {"0": true}}', [IMAGE_ID]),
        ('{"label": ["x=y"], "reference": ["box"]}', [IMAGE_ID]),
        ('{"label": ["x=z"]}', []),
        ('{"before": ["box:1"]}', [OTHER]),
        (json.dumps({"since": [OTHER[7:19]]}), [IMAGE_ID]),
        ('{"until": ["2020-01-01T00:00:00Z"]}', [OTHER]),
    ],
)
async def test_list_by_filters_of_both_forms_shows_what_fits(
    docker: DockerSocket, filters: str, found: list[str]
) -> None:
    rich(docker)
    answer = await docker.ask("GET", "/images/json", query={"filters": filters})
    assert [i["Id"] for i in answer.json] == found


@pytest.mark.parametrize("filters", ['{"colour": ["red"]}', '{"dangling": ["perhaps"]}', "[]"])
async def test_list_by_an_unknown_filter_is_refused(docker: DockerSocket, filters: str) -> None:
    answer = await docker.ask("GET", "/images/json", query={"filters": filters})
    assert answer.status == 400 and "invalid filter" in answer.json["message"]


async def test_inspection_and_history_tell_what_the_image_is(docker: DockerSocket) -> None:
    rich(docker)
    seen = (await docker.ask("GET", f"/v1.41/images/{BOX}/json")).json
    assert seen["Id"] == IMAGE_ID and seen["RepoTags"] == ["box:1"] and seen["VirtualSize"] == 120
    assert seen["Config"]["Cmd"] == ["sh"] and seen["Config"]["Labels"] == {"x": "y"}
    assert seen["Config"]["ExposedPorts"] == {"80/tcp": {}} and seen["Config"]["Hostname"] == ""
    assert seen["RootFS"] == {"Type": "layers", "Layers": ["sha256:aa", "sha256:bb"]}
    assert seen["Created"] == "2023-11-14T22:13:20.500000000Z" and seen["ContainerConfig"]["Cmd"] is None
    newest = (await docker.ask("GET", "/images/docker.io/library/box:1/json")).json
    assert "ContainerConfig" not in newest and "Hostname" not in newest["Config"]
    steps = (await docker.ask("GET", "/images/box:1/history")).json
    assert [(s["CreatedBy"], s["Size"], s["Id"]) for s in steps] == [
        ("RUN x", 20, IMAGE_ID), ("CMD sh", 0, "<missing>"), ("ADD file", 100, "<missing>"),
    ]  # fmt: skip
    assert steps[2]["Created"] == 1_672_531_200 and steps[0]["Tags"] == ["box:1"]


async def test_image_that_is_not_there_is_told_in_dockers_words(docker: DockerSocket) -> None:
    for method, path in (("GET", "json"), ("GET", "history"), ("GET", "get"), ("POST", "tag?repo=x")):
        answer = await docker.ask(method, f"/images/no/{path}")
        assert answer.status == 404, path
        assert answer.json["message"].startswith("No such image: no")
    assert (await docker.ask("DELETE", "/images/no")).status == 404
    assert (await docker.ask("POST", "/images/no/push")).status == 404


async def test_pull_goes_to_every_host_and_is_shown_once(docker: DockerSocket) -> None:
    login = base64.urlsafe_b64encode(json.dumps({"username": "u", "password": "p"}).encode()).decode()
    answer = await docker.ask(
        "POST",
        "/images/create",
        query={"fromImage": "alpine", "tag": "3"},
        headers={"X-Registry-Auth": login},
    )
    assert answer.status == 200 and answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.lines[0] == {
        "status": "pulling", "progressDetail": {"current": 1, "total": 2}, "id": "0123",
        "progress": "[=========================>                         ]       1B/2B",
    }  # fmt: skip
    assert answer.lines[-1] == {"status": "Status: Downloaded newer image for alpine:3"}
    assert sum(line.get("id") == "0123" for line in answer.lines) == 1
    for host in docker.fleet.hosts.values():
        assert host.pulls == [("alpine:3", "")] and host.logins == [Login(user="u", password="p")]
    again = await docker.ask("POST", "/images/create", query={"fromImage": "alpine:3"})
    assert again.status == 200


async def test_pull_of_the_same_image_says_that_it_is_up_to_date(docker: DockerSocket) -> None:
    await docker.ask("POST", "/images/create", query={"fromImage": "a", "tag": "1"})
    answer = await docker.ask("POST", "/images/create", query={"fromImage": "a", "tag": "1"})
    assert answer.lines[-1] == {"status": "Status: Image is up to date for a:1"}


async def test_pull_by_digest_and_platform_on_one_host_asks_for_that(docker: DockerSocket) -> None:
    query = {"fromImage": "a", "tag": OTHER, "platform": "linux/arm64"}
    await docker.ask("POST", "/images/create", query=query, headers={"X-PortainerAgent-Target": "n2"})
    pulls = {host.name: host.pulls for host in docker.fleet.hosts.values()}
    assert pulls == {"n1": [], "n2": [(f"a@{OTHER}", "linux/arm64")], "n3": []}


async def test_pull_without_a_tag_gets_all_of_the_repository(docker: DockerSocket) -> None:
    for host in docker.fleet.hosts.values():
        host.remote = {"app:1": OTHER, "app:2": OTHER, "other:1": OTHER}
    answer = await docker.ask("POST", "/images/create", query={"fromImage": "app"})
    assert answer.status == 200
    for host in docker.fleet.hosts.values():
        assert [ref for ref, _ in host.pulls] == ["app:1", "app:2"]


async def test_pull_of_nothing_fails_before_and_in_the_stream(docker: DockerSocket) -> None:
    for host in docker.fleet.hosts.values():
        host.remote = {}
    assert (await docker.ask("POST", "/images/create", query={"fromImage": "none"})).status == 404
    missing = await docker.ask("POST", "/images/create", query={"fromImage": "missing", "tag": "1"})
    assert missing.status == 200  # a layer was shown before
    assert "manifest unknown" in missing.lines[-1]["error"]
    assert missing.lines[-1]["errorDetail"]["message"] == missing.lines[-1]["error"]
    for query in ({}, {"fromSrc": "http://host/x.tar"}):
        assert (await docker.ask("POST", "/images/create", query=query)).status == 400


async def test_import_makes_an_image_of_the_body(docker: DockerSocket) -> None:
    query = {"fromSrc": "-", "repo": "imp", "tag": "1", "message": "m", "changes": "CMD x\nUSER u"}
    answer = await docker.ask("POST", "/images/create", query=query, data=b"tar tar")
    assert len(answer.lines) == 1 and answer.lines[0]["status"].startswith("sha256:")
    for host in docker.fleet.hosts.values():
        assert host.uploads == [b"tar tar"] and "imp:1" in host.images


async def test_push_tells_the_digest_apart(docker: DockerSocket) -> None:
    answer = await docker.ask("POST", "/images/box/push?tag=1", headers={"X-Registry-Auth": "e30="})
    assert [line.get("status") for line in answer.lines] == ["Pushed", f"1: digest: {IMAGE_ID} size: 3", None]
    assert answer.lines[2]["aux"] == {"Tag": "1", "Digest": IMAGE_ID, "Size": 3}
    assert sum(len(host.logins) for host in docker.fleet.hosts.values()) == 1
    refused = await docker.ask("POST", "/images/box/push", headers={"X-Registry-Auth": "%%"})
    assert refused.status == 400


async def test_tag_goes_to_every_host_that_has_the_image(docker: DockerSocket) -> None:
    first, *others = docker.fleet.hosts.values()
    first.images.clear()
    answer = await docker.ask("POST", f"/images/{BOX}/tag", query={"repo": "new", "tag": "2"})
    assert answer.status == 201
    assert not first.images and all("new:2" in host.images for host in others)
    for query in ({}, {"repo": f"new@{OTHER}"}):
        assert (await docker.ask("POST", "/images/box:1/tag", query=query)).status == 400


async def test_remove_tells_names_and_images_once(docker: DockerSocket) -> None:
    answer = await docker.ask("DELETE", "/images/box:1")
    assert answer.json == [{"Untagged": "box:1"}, {"Deleted": IMAGE_ID}]
    assert not any(host.images for host in docker.fleet.hosts.values())


async def test_remove_of_what_is_in_use_conflicts_in_dockers_words(docker: DockerSocket) -> None:
    info = await docker.fleet.create_instance(CreateInstance(spec=ContainerSpec(image="box:1"), name="web"))
    _, container = docker.fleet._find(info.instance.id)
    container.status = replace(container.status, image_id=IMAGE_ID)
    by_name = await docker.ask("DELETE", "/images/box:1")
    assert by_name.status == 409
    assert "(must force) - container" in by_name.json["message"]
    by_id = await docker.ask("DELETE", f"/images/{BOX}?force=1")
    assert by_id.status == 409 and "(cannot be forced) - image is being used by" in by_id.json["message"]
    for one in docker.fleet.hosts.values():
        assert "box:1" in one.images


async def test_remove_by_id_of_an_image_with_two_names_must_be_forced(docker: DockerSocket) -> None:
    await docker.ask("POST", "/images/box:1/tag", query={"repo": "box", "tag": "2"})
    refused = await docker.ask("DELETE", f"/images/{BOX}")
    assert refused.status == 409 and "referenced in multiple repositories" in refused.json["message"]
    assert (await docker.ask("DELETE", f"/images/{BOX}?force=true")).status == 200


async def test_save_and_load_go_through_whole(docker: DockerSocket) -> None:
    for path in ("/images/box:1/get", "/images/get?names=box:1"):
        answer = await docker.ask("GET", path)
        assert answer.body == f"archive of {IMAGE_ID}\n".encode()
        assert answer.headers["Content-Type"] == "application/x-tar"
    assert (await docker.ask("GET", "/images/get")).status == 400
    loaded = await docker.ask("POST", "/images/load", query={"quiet": 1}, data=b"x" * 100_000)
    assert loaded.lines == [{"stream": "Loaded image: loaded:1\n"}]
    assert all(host.uploads == [b"x" * 100_000] for host in docker.fleet.hosts.values())


async def test_prune_takes_the_dangling_or_all_and_counts_the_bytes(docker: DockerSocket) -> None:
    assert (await docker.ask("POST", "/images/prune")).json == {"ImagesDeleted": None, "SpaceReclaimed": 0}
    answer = await docker.ask("POST", "/images/prune", query={"filters": '{"dangling": {"false": true}}'})
    assert answer.json["ImagesDeleted"] == [{"Untagged": "box:1"}, {"Deleted": IMAGE_ID}]
    assert answer.json["SpaceReclaimed"] == 30


async def test_search_distribution_and_auth_ask_a_registry(docker: DockerSocket) -> None:
    found = (await docker.ask("GET", "/images/search", query={"term": "box", "limit": 2})).json
    assert found[1] == {
        "name": "box-1", "description": "a box", "star_count": 1, "is_official": False, "is_automated": False,
    }  # fmt: skip
    assert (await docker.ask("GET", "/images/search", query={"term": "a", "limit": 1000})).status == 400
    for host in docker.fleet.hosts.values():
        host.remote["docker.io/library/box:1"] = OTHER
    told = (await docker.ask("GET", "/distribution/box:1/json")).json
    assert [near for host in docker.fleet.hosts.values() for near in host.asked_near] == [True]
    assert told["Descriptor"]["digest"] == OTHER
    assert told["Platforms"] == [{"os": "linux", "architecture": "amd64"}]
    good = await docker.ask("POST", "/auth", body={"username": "u", "password": "p", "email": "e"})
    assert good.json == {"Status": "Login Succeeded", "IdentityToken": ""}
    bad = await docker.ask("POST", "/auth", body={"username": "u", "password": "wrong"})
    assert bad.status == 401 and "wrong" in bad.json["message"]


async def test_commit_is_made_on_the_containers_host_with_the_new_configuration(docker: DockerSocket) -> None:
    info = await docker.fleet.create_instance(CreateInstance(spec=ContainerSpec(image="box:1"), name="web"))
    host, _ = docker.fleet._find(info.instance.id)
    query = {
        "container": "web",
        "repo": "new",
        "tag": "1",
        "comment": "c",
        "author": "a",
        "changes": "USER u",
    }
    body = {
        "Env": ["A=it's $b"],
        "Cmd": ["run", "me"],
        "Labels": {"l": 'x "y"'},
        "Hostname": "h",
        "Tty": True,
    }
    answer = await docker.ask("POST", "/commit", query=query, body=body)
    assert answer.status == 201 and answer.json["Id"].startswith("sha256:")
    [request] = host.commits
    assert (request.ref, request.author, request.message, request.pause) == ("new:1", "a", "c", True)
    assert request.changes == (
        """ENV A='it'"'"'s $b'""", "LABEL l='x \"y\"'", 'CMD ["run", "me"]', "USER u",
    )  # fmt: skip
    refused = await docker.ask("POST", "/commit", query=query, body={"OnBuild": ["a\nb"]})
    assert refused.status == 400 and "OnBuild" in refused.json["message"]


async def test_stock_client_does_its_image_commands(docker: DockerSocket, tmp_path: Path) -> None:
    rich(docker)
    listed = await docker.command("images", "--format", "{{.Repository}} {{.Tag}} {{.ID}} {{.Size}}")
    assert listed.out.splitlines() == [f"box 1 {BOX} 120B", f"<none> <none> {OTHER[7:19]} 100B"], listed.err
    assert "RUN x" in (await docker.command("history", "box:1")).out
    pulled = await docker.command("pull", "alpine:3")
    assert pulled.code == 0 and "Status: Downloaded newer image for alpine:3" in pulled.out, pulled.err
    assert "docker.io/library/alpine:3" in pulled.out
    saved = await docker.command("save", "-o", str(tmp_path / "a.tar"), "box:1")
    assert saved.code == 0 and (tmp_path / "a.tar").read_bytes().startswith(b"archive of")
    large = bytes(48 << 20)
    loaded = await docker.command("load", stdin=large)
    assert loaded.out.endswith("Loaded image: loaded:1\n"), loaded.err
    assert all(host.uploads == [large] for host in docker.fleet.hosts.values())
    assert (await docker.command("tag", "box:1", "host:5000/box:2")).code == 0
    removed = await docker.command("rmi", "loaded:1")
    assert removed.out.startswith("Untagged: loaded:1\nDeleted: sha256:"), removed.err
    missing = await docker.command("rmi", "none")
    assert missing.code == 1 and "No such image: none" in missing.err


@pytest.mark.parametrize(
    "name",
    [
        "..%2F..%2Finfo",
        "%2e%2e/%2e%2e/info",
        "a%00b",
        "a%0d%0ab",
        "x" * 5000,
        "%F0%9F%90%B3",
        "sha256:",
        "a@b",
    ],
)
async def test_names_that_are_none_are_refused_by_every_call(docker: DockerSocket, name: str) -> None:
    for method, action in (
        ("GET", "/json"), ("GET", "/history"), ("GET", "/get"), ("POST", "/push"), ("POST", "/tag?repo=x"),
        ("DELETE", ""),
    ):  # fmt: skip
        answer = await docker.ask(method, f"/images/{name}{action}")
        assert 400 <= answer.status < 500 and answer.json["message"], (method, action, answer.body)


async def test_limits_and_filters_that_are_junk_are_refused(docker: DockerSocket) -> None:
    for path in (
        "/images/search?term=a&limit=1e12",
        "/images/search?term=a&limit=-1",
        "/images/json?filters=" + "[" * 60_000,
        "/images/json?filters=%7B%22until%22%3A%5B%22never%22%5D%7D",
        "/images/json?filters=%7B%22a%22%3A1%7D",
    ):  # fmt: skip
        answer = await docker.ask("GET", path)
        assert answer.status == 400 and answer.json["message"], path
