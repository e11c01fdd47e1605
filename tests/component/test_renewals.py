"""Hosts renew their certificates over real TLS: with a real controller, one of before, and ones that fail."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from msgspec.structs import replace

from agent import join as enrolling
from agent.fleetregistry import certificates
from agent.fleetregistry import named as named_registry
from agent.host import HostAgent
from agent.join import Enrollment, client_context, load, new_key, pem_of, signing_request
from agent.main import renewing
from agent.renewal import FIRST, LONGEST, Renewal
from agent.servepeers import Sharing
from agent.session import keep_session
from aio.clock import VirtualClock
from aio.supervisor import Supervisor
from controller.config import ControllerConfig
from controller.pki import Authority, fingerprint
from image.registry.source import NoSource
from model.blobs import BlobWord
from model.codec import encode_json
from model.errors import HTTP_STATUS, ErrorBody, FlotaError, NotFound, Unavailable, WrongState
from model.ids import HostId
from model.renewal import RenewReply, RenewRequest
from tests.component.test_controller_main import ask, config, running
from tests.support.agentlab import AgentLab
from tests.support.certificates import authority_and_server
from tests.support.ports import free_port
from tests.support.waiting import until

DAY = 86400.0
WORD = {"digest": "sha256:" + "a" * 64}


class Host:
    """One that has joined, and its time."""

    def __init__(self, folder: Path, enrollment: Enrollment) -> None:
        self.state, self.run = folder / "host", folder / "run"
        self.clock = VirtualClock(time.time())
        self.enrollment = enrollment
        self.context = client_context(enrollment, self.run)
        self.told: list[Enrollment] = []

    def renewal(self, enrollment: Enrollment | None = None) -> Renewal:
        async def shown(now: Enrollment) -> None:
            self.told.append(now)

        used = enrollment or self.enrollment
        return Renewal(used, self.state, self.run, self.clock, (self.context,), shown)

    async def status(self, context: ssl.SSLContext) -> int:
        """What a question of an agent gets that shows who this context says it is."""
        url = f"{self.enrollment.controllers[0]}/v1/agents/blobs"
        async with aiohttp.ClientSession() as client, client.post(url, json=WORD, ssl=context) as reply:
            return reply.status


async def joined(settings: ControllerConfig, folder: Path) -> Host:
    made = await ask(settings, "POST", "/v1/tokens", {"ttl": 60})
    assert isinstance(made, dict)
    where = f"127.0.0.1:{settings.port}"
    enrollment = await enrolling.join(
        made["token"], where, state=folder / "host", name="one", address="127.0.0.1", labels={}
    )
    return Host(folder, enrollment)


async def record(settings: ControllerConfig) -> dict[str, Any]:
    found = await ask(settings, "GET", "/v1/hosts/one")
    assert isinstance(found, dict)
    return dict(found["host"])


def named(enrollment: Enrollment) -> str:
    return fingerprint(enrollment.certificate.encode())


@contextlib.asynccontextmanager
async def in_session(folder: Path, host: Host) -> AsyncIterator[tuple[HostAgent, list[float]]]:
    """An agent that keeps its session by `host.context`; when its sessions ended."""
    ended: list[float] = []
    async with AgentLab(folder).agent() as agent, Supervisor("test") as supervisor:
        agent.context.host = HostId(host.enrollment.host_id)
        agent.context.certificate = host.enrollment.certificate
        urls = list(host.enrollment.controllers)
        supervisor.start(
            "session",
            lambda: keep_session(
                agent, epoch=1, urls=lambda: urls, context=host.context, ended=lambda: ended.append(1.0)
            ),
        )
        yield agent, ended


async def test_session_goes_over_to_the_new_certificate_and_the_older_opens_nothing(tmp_path: Path) -> None:
    registry = f"127.0.0.1:{free_port()}"  # named by the welcome of each session
    settings = replace(config(tmp_path, free_port()), registry=registry)
    async with running(settings):
        host = await joined(settings, tmp_path)
        async with contextlib.AsyncExitStack() as stack:
            agent, ended = await stack.enter_async_context(in_session(tmp_path / "lab", host))
            agent.context.clock, agent.context.run = host.clock, host.run
            agent.context.state = host.state
            sharing = Sharing(host.enrollment, host.run, NoSource())
            stack.push_async_callback(sharing.swarm.close)
            word = BlobWord(digest=WORD["digest"])

            async def state() -> str:
                return str((await record(settings)).get("state"))

            await until(lambda: agent.membership and _is(state, "ready"), deadline=20, what="in session")
            older = client_context(host.enrollment, host.run)
            assert named_registry(host.state) == registry
            assert await sharing.swarm.ask(word) is not None
            renewal = renewing(host.enrollment, agent, sharing, host.context)
            assert await renewal.turn() == LONGEST and load(host.state) == host.enrollment, "it is not due"
            host.clock.step(61 * DAY)
            assert await renewal.turn() == FIRST
            now = load(host.state)
            assert now.certificate != host.enrollment.certificate
            assert now == replace(host.enrollment, certificate=now.certificate, key=now.key)
            laid = certificates(host.state) / registry

            async def is_laid() -> bool:
                with contextlib.suppress(FileNotFoundError):
                    found = [(laid / name).read_text() for name in ("host.cert", "host.key")]
                    return found == [now.certificate, now.key]
                return False

            await until(is_laid, deadline=20, what="the new one is shown to the registry")

            async def promoted() -> bool:
                found = await record(settings)
                return (found["certificate"], found.get("renewal", "")) == (named(now), "")

            await until(promoted, deadline=20, what="the session by the new one")
            assert len(ended) == 1
            assert (await host.status(host.context), await host.status(older)) == (200, 403)
            assert await sharing.swarm.ask(word) is not None, "by a new connection"
            calling, called, asking = sharing.contexts
            assert await host.status(asking) == 200
            assert await shown_between(calling, called, now.host_id) == {named(now)}


async def shown_between(calling: ssl.SSLContext, called: ssl.SSLContext, host: str) -> set[str]:
    """The certificates of both ends of a connection of a host to itself (SHA-256)."""
    shown: asyncio.Queue[str] = asyncio.Queue()

    def note(writer: asyncio.StreamWriter) -> None:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        shown.put_nowait(hashlib.sha256(der).hexdigest())
        writer.close()

    async with await asyncio.start_server(
        lambda reader, writer: note(writer), "127.0.0.1", 0, ssl=called
    ) as server:
        where = server.sockets[0].getsockname()
        name = f"{host[:32]}.{host[32:]}"
        _, writer = await asyncio.open_connection(*where, ssl=calling, server_hostname=name)
        note(writer)
        found = {await asyncio.wait_for(shown.get(), 10) for _ in range(2)}
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return found


async def _is(look: Any, wanted: str) -> bool:
    return bool(await look() == wanted)


async def test_folder_that_a_certificate_passes_by_can_be_passed_through_by_others(tmp_path: Path) -> None:
    """The agent's folder is made by whoever comes first; DHCP clients of no privileges find theirs below."""
    settings = config(tmp_path, free_port())
    async with running(settings):
        host = await joined(settings, tmp_path)
        client_context(host.enrollment, tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o711 and not list((tmp_path / "new").iterdir())


async def test_agent_that_is_killed_or_hears_no_reply_goes_on_by_what_it_has(tmp_path: Path) -> None:
    settings = config(tmp_path, free_port())
    async with running(settings):
        host = await joined(settings, tmp_path)
        older = client_context(host.enrollment, host.run)
        for _ in range(2):  # the reply never comes to disk
            request = RenewRequest(csr=signing_request(new_key(), "one"))
            await enrolling.ask_renewed(host.enrollment, host.run, request)
            assert await host.status(older) == 200
        host.clock.step(61 * DAY)
        await host.renewal().turn()
        second = load(host.state)
        assert host.told == [second]
        assert (await host.status(host.context), await host.status(older)) == (200, 200), "not in use yet"
        again = client_context(load(host.state), host.run)  # an agent that starts anew
        async with in_session(tmp_path / "lab", Host(tmp_path, second)):

            async def promoted() -> bool:
                return (await record(settings))["certificate"] == named(second)

            await until(promoted, deadline=20, what="the session by the new one")
        assert (await host.status(again), await host.status(older)) == (200, 403)


async def test_host_that_joined_again_meanwhile_keeps_what_it_got_then(tmp_path: Path) -> None:
    settings = config(tmp_path, free_port())
    async with running(settings):
        host = await joined(settings, tmp_path)
        request = RenewRequest(csr=signing_request(new_key(), "one"))
        await enrolling.ask_renewed(host.enrollment, host.run, request)
        again = await joined(settings, tmp_path)
        assert (await record(settings)).get("renewal", "") == ""
        with pytest.raises(WrongState, match="joined again"):
            enrolling.keep_renewed(host.state, host.enrollment, replace(host.enrollment, key="new"))
        assert load(host.state) == again.enrollment


class Answering:
    """A controller that answers renewals by what `say` is."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.new("f")
        self.say: FlotaError | RenewReply = Unavailable("on trial")
        self.asked = 0
        self.asked_for_ca: Callable[[], None] = lambda: None
        self._folder = folder

    async def give_ca(self, request: web.Request) -> web.Response:
        self.asked_for_ca()
        return web.Response(text="its CA")

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.asked += 1
        if isinstance(self.say, FlotaError):
            return web.Response(status=HTTP_STATUS[self.say.code], body=encode_json(ErrorBody.of(self.say)))
        return web.Response(body=encode_json(self.say), content_type="application/json")

    @contextlib.asynccontextmanager
    async def host(self, *, renewing: bool = True) -> AsyncIterator[Host]:
        ca, server = authority_and_server(self._folder)
        app = web.Application()
        if not renewing:
            self.say = NotFound("no such resource: /v1/agents/renew", hint="See GET /v1/openapi.json")
        app.router.add_post("/v1/agents/renew", self.answer)
        app.router.add_get("/v1/ca", self.give_ca)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        key = new_key()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server).start()
            made = Enrollment(
                host_id="1" * 64,
                fleet_id="f",
                controllers=(f"https://127.0.0.1:{runner.addresses[0][1]}",),
                certificate=self.authority.host(signing_request(key, "one"), "1" * 64).certificate.decode(),
                key=pem_of(key),
                ca=ca.read_text(),
                name="one",
            )
            host = Host(self._folder, made)
            host.state.mkdir()
            (host.state / "enrollment.json").write_bytes(encode_json(made))
            host.clock.step(61 * DAY)
            yield host
        finally:
            await runner.cleanup()


async def test_certificate_that_is_renewed_while_a_host_is_told_of_another_controller_stays(
    tmp_path: Path,
) -> None:
    controller = Answering(tmp_path)
    async with controller.host() as host:
        before = host.enrollment
        after = replace(before, certificate="new", key="new too")
        controller.asked_for_ca = lambda: enrolling.keep_renewed(host.state, before, after)
        where = before.controllers[0].removeprefix("https://").replace("127.0.0.1", "localhost")
        await enrolling.follow(host.state, host.run, where)
        assert load(host.state) == replace(after, controllers=(f"https://{where}",))
