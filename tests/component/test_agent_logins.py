"""An agent asks who it is at a registry, of controllers that know, don't, can't say, or are away."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from agent.logins import asking
from model.api import PullLogin
from model.codec import encode_json
from model.errors import HTTP_STATUS, Damaged, ErrorBody, FlotaError, NotFound
from model.ids import InstanceId
from model.registries import NOBODY, Login, encode_header
from tests.support.certificates import authority_and_server

ADA = Login(user="ada", password="secret")
ANSWERS: dict[str, object] = {
    "known": PullLogin(login=encode_header(ADA)),
    "unknown": PullLogin(),
    "foreign": NotFound("no container on this host"),
    "spoilt": Damaged("it can't be opened", hint="Give it again"),
}


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    ca, server = authority_and_server(tmp_path)
    return ssl.create_default_context(cafile=str(ca)), server


@pytest.fixture
async def controller(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        found = ANSWERS.get(request.match_info["ref"])
        if isinstance(found, FlotaError):
            return web.Response(status=HTTP_STATUS[found.code], body=encode_json(ErrorBody.of(found)))
        if found is None:
            return web.Response(status=200, text="nonsense")
        return web.Response(body=encode_json(found), content_type="application/json")

    app = web.Application()
    app.router.add_get("/v1/agents/logins/{ref}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls[1]).start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("instance", "login"), [("known", ADA), ("unknown", NOBODY), ("foreign", NOBODY), ("odd", NOBODY)]
)
async def test_login_is_what_the_controller_says_or_nobodys(
    controller: str, tls: tuple[ssl.SSLContext, ssl.SSLContext], instance: str, login: Login
) -> None:
    ask = asking(lambda: [controller], tls[0])
    assert await ask(InstanceId(instance)) == login


async def test_login_that_can_not_be_opened_is_told(
    controller: str, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    with pytest.raises(Damaged, match="Give it again"):
        await asking(lambda: [controller], tls[0])(InstanceId("spoilt"))


async def test_controller_that_is_away_is_passed_over(
    controller: str, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        away = f"https://127.0.0.1:{taken.getsockname()[1]}"
    assert await asking(lambda: [away, controller], tls[0])(InstanceId("known")) == ADA
    assert await asking(lambda: [away], tls[0])(InstanceId("known")) == NOBODY


async def test_somebody_elses_server_is_not_believed(controller: str) -> None:
    assert await asking(lambda: [controller], ssl.create_default_context())(InstanceId("known")) == NOBODY
