"""`--health-*`: what each says, alone and on top of what was there."""

from __future__ import annotations

from typing import Any

import pytest

from cli.parse.health import health_check
from model.errors import InvalidInput
from model.spec import HealthCheck, HttpProbe, ShellProbe, TcpProbe

HTTP = HttpProbe(port=80)


@pytest.mark.parametrize(
    ("flags", "check"),
    [
        ({}, None),
        ({"no_healthcheck": False, "health_cmd": None}, None),
        ({"no_healthcheck": True}, HealthCheck(disabled=True)),
        ({"health_cmd": "curl -f x || exit 1"}, HealthCheck(probe=ShellProbe(command="curl -f x || exit 1"))),
        ({"health_cmd": ""}, HealthCheck()),
        ({"health_tcp": "5432"}, HealthCheck(probe=TcpProbe(port=5432))),
        ({"health_http": "8080"}, HealthCheck(probe=HttpProbe(port=8080))),
        ({"health_http": "8080/a/b?c"}, HealthCheck(probe=HttpProbe(port=8080, path="/a/b?c"))),
        ({"health_interval": "500ms", "health_retries": 5}, HealthCheck(interval=0.5, retries=5)),
        (
            {"health_timeout": "1m", "health_start_period": "2", "health_start_interval": "3s"},
            HealthCheck(timeout=60.0, start_period=2.0, start_interval=3.0),
        ),
    ],
)
def test_health_flags_make_a_check(flags: dict[str, Any], check: HealthCheck | None) -> None:
    assert health_check(flags, None) == check


@pytest.mark.parametrize(
    ("before", "flags", "after"),
    [
        (HealthCheck(probe=HTTP, interval=1.0), {}, HealthCheck(probe=HTTP, interval=1.0)),
        (HealthCheck(probe=HTTP), {"health_interval": "9s"}, HealthCheck(probe=HTTP, interval=9.0)),
        (HealthCheck(probe=HTTP, retries=2), {"health_cmd": ""}, HealthCheck(retries=2)),
        (HealthCheck(probe=HTTP), {"no_healthcheck": True}, HealthCheck(disabled=True)),
        (HealthCheck(disabled=True), {"health_tcp": "1"}, HealthCheck(probe=TcpProbe(port=1))),
    ],
)
def test_health_flags_change_what_they_name(
    before: HealthCheck, flags: dict[str, Any], after: HealthCheck
) -> None:
    assert health_check(flags, before) == after


@pytest.mark.parametrize(
    "flags",
    [
        {"no_healthcheck": True, "health_interval": "1s"},
        {"health_cmd": "x", "health_tcp": "1"},
        {"health_tcp": "80/x"},
        {"health_tcp": "http"},
        {"health_http": "/path"},
        {"health_http": "123456/path"},
        {"health_interval": "-1s"},
        {"health_timeout": "soon"},
    ],
)
def test_health_flags_that_contradict_or_say_nothing_are_refused(flags: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        health_check(flags, None)
