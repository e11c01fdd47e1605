"""A controller as it is started for real: folder, socket, TLS, tokens, certificates."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aio.clock import SystemClock, VirtualClock
from aio.service import Hooks
from aio.supervisor import Supervisor
from controller.config import ControllerConfig, check_config
from controller.controller import Controller
from controller.main import LOOK_EVERY, KeptCertificates, own_addresses, run, serving, write_credentials
from controller.options import Options
from controller.pki import Authority
from controller.store.memory import MemoryStore
from model.errors import FlotaError, InUse, InvalidInput
from tests.support.ports import free_port
from tests.support.waiting import until


def config(folder: Path, port: int = 0) -> ControllerConfig:
    return ControllerConfig(
        state_dir=str(folder / "state"),
        socket=str(folder / "flota.sock"),
        listen="127.0.0.1",
        port=port,
        advertise="127.0.0.1",
    )


@contextlib.asynccontextmanager
async def running(settings: ControllerConfig) -> AsyncIterator[None]:
    ready = asyncio.Event()
    task = asyncio.create_task(run(settings, ready))
    started = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({task, started}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield
    finally:
        started.cancel()
        task.cancel()
        await asyncio.wait({task, started})
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]


async def ask(settings: ControllerConfig, method: str, path: str, body: object = None) -> object:
    connector = aiohttp.UnixConnector(settings.socket)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://flota{path}", json=body) as reply,
    ):
        assert reply.status < 400, await reply.text()
        return await reply.json()


async def test_api_answers_on_the_socket_and_the_fleet_survives_a_restart(tmp_path: Path) -> None:
    settings = config(tmp_path)
    async with running(settings):
        assert Path(settings.socket).stat().st_mode & 0o777 == 0o660
        await ask(settings, "POST", "/v1/networks", {"name": "blue"})
        first = await ask(settings, "GET", "/v1/info")
    assert not Path(settings.socket).exists()
    async with running(settings):
        second = await ask(settings, "GET", "/v1/info")
        found = await ask(settings, "GET", "/v1/networks")
    assert isinstance(first, dict) and isinstance(second, dict) and isinstance(found, list)
    assert second["fleet_id"] == first["fleet_id"]
    assert {n["network"]["spec"]["name"] for n in found} == {"blue", "bridge"}


async def certificate_of(settings: ControllerConfig) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", settings.port, ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return found


async def test_reload_has_new_connections_served_with_a_new_certificate(tmp_path: Path) -> None:
    settings = config(tmp_path, free_port())
    hooks = Hooks()
    changed = msgspec.structs.replace(settings, listen="127.0.0.2")
    async with Supervisor("test") as supervisor:
        supervisor.start("controller", lambda: run(settings, hooks=hooks, reread=lambda: changed))
        await asyncio.wait_for(hooks.ready.wait(), 60)
        before = await certificate_of(settings)
        assert hooks.reload is not None
        assert await hooks.reload() == "a new certificate; with the next start: listen"
        assert await certificate_of(settings) != before
        await asyncio.wait_for(hooks.heart(), 10)


async def test_controllers_certificates_are_renewed_while_it_serves(tmp_path: Path) -> None:
    settings, clock = config(tmp_path, free_port()), VirtualClock(time.time())
    options = Options(name="test")
    folder = tmp_path / "state"
    folder.mkdir()
    made = Controller(
        MemoryStore(), SystemClock(), lambda: secrets.token_hex(32),
        lambda fleet: Authority.open(folder / "pki", fleet), options,
    )  # fmt: skip
    address = f"127.0.0.1:{settings.port}"
    async with made, serving(settings, made) as context, Supervisor("test") as supervisor:
        write_credentials(settings, made, address)
        supervisor.start("certificates", KeptCertificates(settings, made, context, address, clock).run)
        before, admin = await certificate_of(settings), (folder / "admin.json").read_bytes()
        clock.step(240 * 86400)
        for _ in range(2):  # one look at least is over by then
            await until(lambda: clock._sleepers, deadline=20)
            await clock.advance(LOOK_EVERY)
        assert await certificate_of(settings) == before and (folder / "admin.json").read_bytes() == admin
        clock.step(5 * 86400)
        await until(lambda: clock._sleepers, deadline=20)
        await clock.advance(LOOK_EVERY)

        async def changed() -> bool:
            return await certificate_of(settings) != before

        await until(changed, deadline=20, what="a new certificate")
        assert (folder / "admin.json").read_bytes() != admin
        assert json.loads((folder / "admin.json").read_bytes())["address"] == address


async def test_second_controller_on_one_folder_is_refused(tmp_path: Path) -> None:
    settings = config(tmp_path)
    async with running(settings):
        other = msgspec.structs.replace(settings, socket=str(tmp_path / "other.sock"))
        with pytest.raises(InUse, match="another controller"):
            async with running(other):
                pass
        assert await ask(settings, "GET", "/v1/info")


async def test_taken_port_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        stack.push_async_callback(server.wait_closed)
        stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        settings = config(tmp_path, port)
        with pytest.raises(FlotaError, match=str(port)):
            async with running(settings):
                pass
        assert not Path(settings.socket).exists()


async def test_host_joins_with_a_token_over_tls_and_is_known_by_its_certificate(tmp_path: Path) -> None:
    settings = config(tmp_path, free_port())
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    async with running(settings):
        made = await ask(settings, "POST", "/v1/tokens", {"ttl": 60})
        assert isinstance(made, dict)
        ca = json.loads((tmp_path / "state" / "admin.json").read_text())["ca"]
        context = ssl.create_default_context(cadata=ca)
        url = f"https://127.0.0.1:{settings.port}"
        request = {"secret": made["token"], "csr": csr, "name": "one", "address": "127.0.0.1"}
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/v1/ca", ssl=context) as reply:
                assert await reply.text() == ca
            async with session.post(f"{url}/v1/join", json={**request, "secret": "x"}, ssl=context) as reply:
                assert reply.status == 401
            async with session.post(f"{url}/v1/join", json=request, ssl=context) as reply:
                assert reply.status < 300, await reply.text()
                joined = await reply.json()
            async with session.get(f"{url}/v1/info", ssl=context) as reply:
                assert reply.status == 401
        assert joined["fleet_id"] and len(joined["host_id"]) == 64
        await _session_opens(tmp_path, url, joined, key)


async def _session_opens(
    folder: Path, url: str, joined: dict[str, str], key: ec.EllipticCurvePrivateKey
) -> None:
    from model.codec import encode_wire
    from model.status import HostFacts, HostReport
    from model.wire import Hello, Welcome, decode_controller

    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "host.pem").write_bytes(joined["certificate"].encode())
    (folder / "host.key").write_bytes(pem)
    context = ssl.create_default_context(cadata=joined["ca"])
    context.load_cert_chain(folder / "host.pem", folder / "host.key")
    hello = Hello(
        epoch=1,
        boot_id="b",
        facts=HostFacts(hostname="one", address="127.0.0.1"),
        statuses=(),
        report=HostReport(host=joined["host_id"]),  # type: ignore[arg-type]
    )
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/v1/agents/session", ssl=context) as socket,
    ):
        await socket.send_bytes(encode_wire(hello))
        message = decode_controller(await asyncio.wait_for(socket.receive_bytes(), 5))
        assert isinstance(message, Welcome) and message.view.fleet_id == joined["fleet_id"]


async def test_remote_admin_with_the_credentials_file_may_ask(tmp_path: Path) -> None:
    settings = config(tmp_path, free_port())
    async with running(settings):
        path = tmp_path / "state" / "admin.json"
        assert path.stat().st_mode & 0o777 == 0o600
        credentials = json.loads(path.read_text())
        (tmp_path / "c.pem").write_text(credentials["certificate"])
        (tmp_path / "c.key").write_text(credentials["key"])
        context = ssl.create_default_context(cadata=credentials["ca"])
        context.load_cert_chain(tmp_path / "c.pem", tmp_path / "c.key")
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://{credentials['address']}/v1/info", ssl=context) as reply,
        ):
            assert reply.status == 200, await reply.text()


@pytest.mark.parametrize(
    "wrong",
    [
        ControllerConfig(port=70000),
        ControllerConfig(ping_every=5),
        ControllerConfig(store="mongo:"),
        ControllerConfig(socket="relative.sock"),
    ],
)
def test_wrong_configuration_is_refused(wrong: ControllerConfig) -> None:
    with pytest.raises(InvalidInput):
        check_config(wrong)


@pytest.mark.parametrize("content", [b"SQLite format 3\0" + bytes(4080), b"no database at all"])
async def test_damaged_registry_is_told_on_its_port_and_the_controller_starts_without(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    settings = msgspec.structs.replace(config(tmp_path, free_port()), registry=f"127.0.0.1:{free_port()}")
    async with running(settings):
        pass
    index = next((tmp_path / "state" / "registry").glob("*.db"))
    index.write_bytes(content)
    async with running(settings):
        await ask(settings, "POST", "/v1/networks", {"name": "blue"})
        authority = ssl.create_default_context(cafile=str(tmp_path / "state" / "pki" / "ca.pem"))
        url = f"https://{settings.registry}/v2/a/manifests/1"
        async with aiohttp.ClientSession() as session, session.get(url, ssl=authority) as reply:
            said = await reply.json()
    assert reply.status == 503 and "this registry is not served" in said["errors"][0]["message"]
    assert str(index) in said["errors"][0]["message"] and index.read_bytes() == content
    assert "the controller starts without its registry" in caplog.text


async def test_names_that_no_resolver_answers_for_hold_up_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = msgspec.structs.replace(config(tmp_path), advertise="slow.test", registry="odd.test:7422")

    async def look_up(name: str) -> list[str]:
        if name == "slow.test":
            await asyncio.Event().wait()
        if name == "odd.test":
            ("a" * 64).encode("idna")  # as getaddrinfo does with a label of 64 letters
        return ["192.0.2.7"]

    async with asyncio.timeout(30):
        found = await own_addresses(settings, look_up, within=0.05)
    assert {"slow.test", "odd.test", "192.0.2.7"} <= found
    assert [r.getMessage() for r in caplog.records] == ["where slow.test is, is not known within 0.05 s"]


async def test_controller_with_a_host_name_that_can_be_none_in_the_dns_starts_its_registry(
    tmp_path: Path,
) -> None:
    port = free_port()
    settings = msgspec.structs.replace(
        config(tmp_path), advertise="a" * 64 + ".test", registry=f"127.0.0.1:{port}"
    )
    async with running(settings):
        found = await ask(settings, "GET", "/v1/registry")
    assert isinstance(found, dict) and found["address"] == f"127.0.0.1:{port}"
