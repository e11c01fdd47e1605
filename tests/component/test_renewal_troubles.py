"""Certificates that can't be renewed, or not be shown yet: told, tried again, and nothing is lost."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from agent.join import Enrollment, load
from agent.registrycopies import CopyStore, RegistryCopies
from agent.renewal import FIRST, LONGEST, Renewal, life_of
from aio.supervisor import Supervisor
from image.registry.server.limits import Limits
from model.codec import encode_json
from model.errors import Forbidden
from model.registrycopies import PATH, CopyOrders
from model.renewal import RenewReply
from tests.component.test_controller_main import config, running
from tests.component.test_renewals import DAY, Answering, joined
from tests.support.certificates import authority_and_server
from tests.support.ports import free_port
from tests.support.waiting import until


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    found = [(r.levelno, r.getMessage()) for r in caplog.records if r.name == "flota.agent"]
    caplog.clear()
    return found


async def test_failures_are_told_and_tried_again_ever_more_rarely(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    controller = Answering(tmp_path)
    async with controller.host() as host:
        before = (host.state / "enrollment.json").read_bytes()
        renewal = host.renewal()
        waits = [await renewal.turn() for _ in range(9)]
        assert 0.75 * FIRST <= waits[0] <= 1.25 * FIRST < waits[2] < waits[4]
        assert 0.75 * LONGEST <= waits[-1] <= 1.25 * LONGEST
        lines = said(caplog)
        assert len(lines) == 9 == controller.asked
        assert (
            lines[0][0] == logging.INFO
            and "good for 29 more days, is not renewed yet: on trial" in lines[0][1]
        )
        controller.say = Forbidden("another")
        host.clock.step(23 * DAY)
        await renewal.turn()
        controller.say = RenewReply(certificate=host.enrollment.certificate)
        await renewal.turn()
        [(level, words), (_, spoilt)] = said(caplog)
        assert level == logging.WARNING and "good for 6.0 more days, is not renewed: another" in words
        assert "no certificate of this fleet" in spoilt
        host.clock.step(7 * DAY)
        await renewal.turn()
        [(level, words)] = said(caplog)
        assert level == logging.WARNING and "has expired" in words and "flota join TOKEN ADDRESS" in words
        assert (host.state / "enrollment.json").read_bytes() == before and not host.told


async def test_controller_of_before_is_told_of_once_until_the_last_week(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with Answering(tmp_path).host(renewing=False) as host:
        renewal = host.renewal()
        for _ in range(4):
            await renewal.turn()
        [(level, words)] = said(caplog)
        assert level == logging.INFO and "knows of no renewal" in words
        host.clock.step(24 * DAY)
        for _ in range(2):
            await renewal.turn()
        assert [level for level, _ in said(caplog)] == [logging.WARNING] * 2


async def test_new_certificate_that_could_not_be_shown_is_shown_later_and_not_asked_for_again(
    tmp_path: Path,
) -> None:
    settings = config(tmp_path, free_port())
    async with running(settings):
        host = await joined(settings, tmp_path)
        host.clock.step(61 * DAY)
        failures = [OSError("no room")]

        async def shown(now: Enrollment) -> None:
            if failures:
                raise failures.pop()
            host.told.append(now)

        renewal = Renewal(host.enrollment, host.state, host.run, host.clock, (host.context,), shown)
        assert await renewal.turn() >= 0.75 * FIRST and not host.told
        made = load(host.state)
        await renewal.turn()
        assert host.told == [made] == [load(host.state)]
        host.clock.step(-61 * DAY)
        assert await renewal.turn() == LONGEST
        assert life_of(made.certificate).end > life_of(host.enrollment.certificate).end - 1
        assert os.listdir(host.run) == [], "no key is left there"


async def test_copies_of_the_registry_come_by_connections_that_show_the_certificate_of_now(
    tmp_path: Path,
) -> None:
    ca, server = authority_and_server(tmp_path)
    seen: list[object] = []

    async def orders(request: web.Request) -> web.Response:
        await request.read()
        if request.transport not in seen:
            seen.append(request.transport)
        return web.Response(body=encode_json(CopyOrders(wait=0.05)), content_type="application/json")

    app = web.Application()
    app.router.add_post(PATH, orders)
    served = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await served.setup()
    shown = ["first"]
    try:
        await web.TCPSite(served, "127.0.0.1", 0, ssl_context=server).start()
        registry = f"127.0.0.1:{served.addresses[0][1]}"
        context = ssl.create_default_context(cafile=str(ca))
        store = CopyStore(tmp_path / "copy", Limits())
        copies = RegistryCopies(store, lambda: registry, context, lambda: shown[0])
        async with Supervisor("test") as supervisor:
            supervisor.start("copies", copies.run)
            await until(lambda: seen, deadline=20)
            shown[0] = "second"
            await until(lambda: len(seen) == 2, deadline=20, what="a new connection")
    finally:
        await served.cleanup()
