"""Who may call what: every route of both tables with every role, and identities out of certificates."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from api.identity import of_certificate
from api.ports import Identity
from api.routes.route import Route
from api.routes.table import CONTROLLER, HOST
from api.server import allow
from model.errors import Forbidden, Unauthenticated

ANYBODY = {("GET", "/v1/ca"), ("POST", "/v1/join")}
AGENTS = {("GET", "/v1/agents/logins/{ref}"), ("GET", "/v1/agents/session"), ("GET", "/v1/agents/pipe"),
          ("POST", "/v1/agents/blobs"), ("POST", "/v1/agents/renew")}  # fmt: skip
IDS = [f"{r.method} {r.path}" for r in CONTROLLER]
HOST_ID = "0" * 63 + "1"


def allowed(route: Route[Any], role: Any) -> bool:
    try:
        allow(route, Identity(role=role, id=HOST_ID))
    except Forbidden:
        assert role != "anonymous"
        return False
    except Unauthenticated:
        assert role == "anonymous"
        return False
    return True


@pytest.mark.parametrize("route", CONTROLLER, ids=IDS)
def test_route_is_open_to_exactly_one_role(route: Route[Any]) -> None:
    key = (route.method, route.path)
    expected = {
        "anonymous": key in ANYBODY,
        "host": key in AGENTS | ANYBODY,
        "admin": key not in AGENTS,
    }
    assert {role: allowed(route, role) for role in expected} == expected


def test_no_route_is_listed_twice_and_each_says_what_it_does() -> None:
    for table in (CONTROLLER, HOST):
        keys = [(r.method, r.path) for r in table]
        assert len(set(keys)) == len(keys)
        assert all(r.summary for r in table)


def test_what_is_forwarded_to_hosts_exists_there() -> None:
    here = {(r.method, r.path) for r in HOST}
    forwarded = {(r.method, r.path) for r in CONTROLLER if r.handler.__name__ in
                 ("kill", "attach", "exec_", "top", "stats", "pull", "load", "import_")}  # fmt: skip
    forwarded |= {("GET", "/v1/instances/{ref}/logs")}
    assert len(forwarded) == 9 and forwarded <= here


def test_commands_are_the_routes_that_change_something() -> None:
    for route in itertools.chain(CONTROLLER, HOST):
        assert route.kind != "command" or route.method != "GET", route.path
        assert route.kind != "query" or route.method == "GET", route.path


def certificate(*names: tuple[str, str]) -> dict[str, Any]:
    return {"subjectAltName": names}


@pytest.mark.parametrize(
    ("uri", "identity"),
    [
        (f"spiffe://f/host/{HOST_ID}", Identity(role="host", id=HOST_ID)),
        ("spiffe://f/user/ada", Identity(role="admin", id="ada")),
        ("spiffe://f/controller", None),
        ("spiffe://f/host/", None),
        ("spiffe://f/host/../user/ada", None),
        ("spiffe://f/host/n1", None),
        (f"spiffe://f/host/{HOST_ID}/x", None),
        ("spiffe://f/user/", None),
        ("spiffe://f/user/a b", None),
        ("spiffe://f/admin", None),
        ("spiffe://other/user/ada", None),
        ("spiffe://f.evil/user/ada", None),
        ("spiffe:///user/ada", None),
        ("https://f/user/ada", None),
        ("spiffe://f", None),
    ],
)
def test_identity_is_the_uri_of_the_certificate(uri: str, identity: Identity | None) -> None:
    names = (("DNS", "n1"), ("URI", uri))
    if identity is not None:
        assert of_certificate(certificate(*names), "f") == identity
        return
    with pytest.raises(Forbidden):
        of_certificate(certificate(*names), "f")


def test_certificate_with_two_identities_or_none_is_refused() -> None:
    ada, bob = ("URI", "spiffe://f/user/ada"), ("URI", "spiffe://f/user/bob")
    for names in ((), (ada, bob), (("DNS", "ada"),)):
        with pytest.raises(Forbidden):
            of_certificate(certificate(*names), "f")
