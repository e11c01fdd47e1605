"""Who may use the registry of a real controller: certificates of the fleet, tokens, nobody."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from msgspec.structs import replace

from controller.config import ControllerConfig, check_config, registry_place
from controller.main import run
from controller.pki import Authority
from model.errors import AlreadyExists, InvalidInput
from tests.support.fleetregistry import Client
from tests.support.images import digest, image, member, tar
from tests.support.servedregistry import Controlled, controlled

BUILT = image([tar(member("a", b"a"))])


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controlled]:
    async with controlled(tmp_path) as found:
        yield found


async def statuses(client: Client, name: str = "team/app") -> tuple[int, int, int, int]:
    """Of asking who one is, pulling, pushing, deleting."""
    return (
        (await client.ask("GET", "/v2/")).status,
        (await client.ask("GET", f"/v2/{name}/tags/list")).status,
        (await client.ask("POST", f"/v2/{name}/blobs/uploads/")).status,
        (await client.ask("DELETE", f"/v2/{name}/blobs/{digest(b'none')}")).status,
    )


@pytest.fixture
async def filled(fleet: Controlled) -> Controlled:
    async with fleet.client(*fleet.admin) as admin:
        await admin.push("team/app", BUILT, "1")
        await admin.push("other", BUILT, "1")
    return fleet


async def test_admins_certificate_opens_everything(filled: Controlled) -> None:
    async with filled.client(*filled.admin) as admin:
        assert await statuses(admin) == (200, 200, 202, 404)


async def test_hosts_certificate_pulls_and_pushes_until_the_host_is_removed(filled: Controlled) -> None:
    pair = await filled.joined("n7")
    async with filled.client(*pair) as host:
        assert await statuses(host) == (200, 200, 202, 403)
    assert (await filled.api("DELETE", "/v1/hosts/n7?force=true"))[0] == 204
    async with filled.client(*pair) as host:
        assert await statuses(host) == (403, 403, 403, 403)


async def test_hosts_older_certificate_is_refused_once_it_joined_again(filled: Controlled) -> None:
    pair = await filled.joined("n7")
    old = [path.rename(path.with_name(f"old-{path.name}")) for path in pair]
    new = await filled.joined("n7", again=True)
    for certificate, expected in ((old, 403), (new, 200)):
        async with filled.client(*certificate) as host:
            assert (await host.ask("GET", "/v2/")).status == expected


async def test_certificate_of_another_fleet_is_no_way_in(filled: Controlled, tmp_path: Path) -> None:
    pair = Authority.new("f" * 64).admin("admin")
    paths = tmp_path / "foreign.pem", tmp_path / "foreign.key"
    for path, data in zip(paths, pair, strict=True):
        path.write_bytes(data)
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
        async with filled.client(*paths) as client:
            await client.ask("GET", "/v2/")


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("pull", (200, 200, 403, 403)), ("push", (200, 200, 202, 403)), ("delete", (200, 200, 202, 404))],
)
async def test_token_lets_do_what_its_scope_says(
    filled: Controlled, scope: str, expected: tuple[int, ...]
) -> None:
    async with filled.client(secret=await filled.token("ci", scope=scope)) as client:
        assert await statuses(client) == expected


async def test_token_of_a_prefix_is_for_that_alone(filled: Controlled) -> None:
    async with filled.client(secret=await filled.token("ci", scope="push", prefix="team")) as client:
        assert await statuses(client) == (200, 200, 202, 403)
        assert await statuses(client, "other") == (200, 403, 403, 403)
        assert (await client.ask("GET", "/v2/_catalog")).json == {"repositories": ["team/app"]}


async def test_token_ends_when_it_is_removed_and_when_it_expires(filled: Controlled) -> None:
    secret = await filled.token("ci")
    async with filled.client(secret=secret) as client:
        assert (await client.ask("GET", "/v2/")).status == 200
        _, tokens = await filled.api("GET", "/v1/registry/tokens")
        assert [(t["name"], t.get("secret_hash", "")) for t in tokens] == [("ci", "")]
        assert (await filled.api("DELETE", "/v1/registry/tokens/ci"))[0] == 204
        reply = await client.ask("GET", "/v2/")
        assert (reply.status, reply.code) == (401, "UNAUTHORIZED")
    async with filled.client(secret=await filled.token("brief", ttl=0.001)) as client:
        reply = await client.ask("GET", "/v2/")
        assert reply.status == 401 and "expired" in reply.body.decode()


async def test_secret_is_kept_nowhere(filled: Controlled) -> None:
    secret = await filled.token("ci")
    for path in Path(filled.settings.state_dir).rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "ok", "scope": "admin"},
        {"name": "ok", "prefix": "Team"},
        {"name": "ok", "prefix": "team/"},
        {"name": "ok", "prefix": "../x"},
        {"name": "ok", "ttl": -1},
        {"name": "ok", "ttl": 1e12},
        {"name": "ok", "other": 1},
        {},
    ],
)
async def test_token_that_cannot_be_is_refused_and_not_made(fleet: Controlled, body: object) -> None:
    status, reply = await fleet.api("POST", "/v1/registry/tokens", body)
    assert status == 400 and reply["message"]
    assert (await fleet.api("GET", "/v1/registry/tokens"))[1] == []


async def test_token_of_a_name_that_is_taken_is_refused(fleet: Controlled) -> None:
    await fleet.token("ci")
    assert (await fleet.api("POST", "/v1/registry/tokens", {"name": "ci"}))[0] == 409
    assert (await fleet.api("DELETE", "/v1/registry/tokens/nobody"))[0] == 404


@pytest.mark.parametrize(
    "login", ["Basic x", "Basic !", "Basic Og==", "Basic YTpi", "Bearer x", "Bearer a.b", "Digest x", "Basic"]
)
async def test_login_that_is_none_is_401(filled: Controlled, login: str) -> None:
    async with filled.client() as client:
        for path in ("/v2/", "/v2/team/app/tags/list"):
            reply = await client.ask("GET", path, Authorization=login)
            assert (reply.status, reply.code) == (401, "UNAUTHORIZED")
            assert reply.headers["WWW-Authenticate"] == 'Basic realm="flota"'


async def test_nobody_gets_nothing_unless_it_is_switched_on(filled: Controlled) -> None:
    async with filled.client() as client:
        assert await statuses(client) == (401, 401, 401, 401)
        assert (await client.ask("GET", "/token")).status == 404


async def test_where_anybody_may_pull_clients_still_learn_to_log_in(tmp_path: Path) -> None:
    async with controlled(tmp_path, anonymous_pull=True) as fleet:
        async with fleet.client(*fleet.admin) as admin:
            await admin.push("team/app", BUILT, "1")
        async with fleet.client() as client:
            assert await statuses(client) == (401, 200, 401, 401)
            challenge = (await client.ask("GET", "/v2/")).headers["WWW-Authenticate"]
            assert challenge == f'Bearer realm="https://{fleet.host}/token",service="flota"'
            nobody = (await client.ask("GET", "/token?service=flota")).json["token"]
        async with fleet.client(bearer=nobody) as client:
            assert await statuses(client) == (200, 200, 403, 403)
        async with fleet.client(secret=await fleet.token("ci", scope="push")) as client:
            own = (await client.ask("GET", "/token?service=flota&scope=repository:x:push")).json["token"]
        async with fleet.client(secret="wrong") as client:
            assert (await client.ask("GET", "/token")).status == 401
        async with fleet.client(bearer=own) as client:
            assert await statuses(client) == (200, 200, 202, 403)
            assert (await fleet.api("DELETE", "/v1/registry/tokens/ci"))[0] == 204
            assert (await client.ask("GET", "/v2/")).status == 401


async def test_images_and_tokens_survive_a_restart_of_the_controller(tmp_path: Path) -> None:
    async with controlled(tmp_path) as fleet:
        secret = await fleet.token("ci", scope="push")
        async with fleet.client(secret=secret) as client:
            await client.push("app", BUILT, "1")
    async with controlled(tmp_path) as fleet, fleet.client(secret=secret) as client:
        assert (await client.ask("GET", "/v2/app/manifests/1")).body == BUILT.manifest
        assert (await client.ask("GET", f"/v2/app/blobs/{BUILT.id}")).body == BUILT.config
        _, info = await fleet.api("GET", "/v1/info")
        assert info["registry"] == fleet.host


@pytest.mark.parametrize(
    "place", ["x", "0", "70000", "a:b", ":50", "192.0.2.1:", "192.0.2.1", "fd00::1", "-1"]
)
async def test_place_of_a_registry_that_is_none_starts_nothing(tmp_path: Path, place: str) -> None:
    settings = ControllerConfig(state_dir=str(tmp_path / "state"), socket=str(tmp_path / "s"), registry=place)
    with pytest.raises(InvalidInput, match=r"no port and no ADDRESS:PORT"):
        check_config(settings)


@pytest.mark.parametrize(
    ("place", "expected"),
    [("5000", ("", 5000)), ("192.0.2.1:5000", ("192.0.2.1", 5000)), ("[fd00::1]:443", ("fd00::1", 443))],
)
def test_place_of_a_registry_is_a_port_or_an_address_too(place: str, expected: tuple[str, int]) -> None:
    assert registry_place(place) == expected


async def test_registrys_port_that_is_taken_is_said(fleet: Controlled, tmp_path: Path) -> None:
    settings = replace(fleet.settings, state_dir=str(tmp_path / "other"), socket=str(tmp_path / "other.sock"))
    with pytest.raises(AlreadyExists, match=fleet.host.rpartition(":")[2]):
        await run(settings)
    assert not Path(settings.socket).exists()


async def test_plain_http_on_the_registrys_port_gets_no_answer_of_it(filled: Controlled) -> None:
    with pytest.raises(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session, session.get(f"http://{filled.host}/v2/") as reply:
            await reply.read()


@pytest.mark.parametrize("login", ["Basic ä", "Bearer ä.ä", "Bearer x", "Basic", "Digest x"])
async def test_login_that_nobody_can_read_is_refused(filled: Controlled, login: str) -> None:
    async with filled.client() as client:
        answer = await client.ask("GET", "/v2/", Authorization=login)
        assert answer.status == 401
