"""The OpenAPI document: made of the route table, whole and without loose ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from api.openapi import document
from api.routes.table import CONTROLLER, HOST
from model.codec import encode_json

DOCUMENTS = {
    "controller": json.loads(encode_json(document(CONTROLLER))),
    "host": json.loads(encode_json(document(HOST))),
}


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_leads_somewhere(name: str) -> None:
    described = DOCUMENTS[name]
    known = described["components"]["schemas"]
    assert {r.removeprefix("#/components/schemas/") for r in references(described)} <= set(known)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_operations_have_unique_ids_and_declare_their_parameters(name: str) -> None:
    found = list(operations(DOCUMENTS[name]))
    ids = [operation["operationId"] for _, _, operation in found]
    assert len(set(ids)) == len(ids)
    for _, path, operation in found:
        declared = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert declared == ({"ref"} if "{ref}" in path else set())
        names = [p["name"] for p in operation["parameters"]]
        assert len(set(names)) == len(names)
        assert {"4XX", "5XX"} < set(operation["responses"])


def test_bodies_queries_and_roles_are_described() -> None:
    paths = DOCUMENTS["controller"]["paths"]
    create = paths["/v1/instances"]["post"]
    assert create["requestBody"]["required"]
    assert create["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/CreateInstance")
    assert not paths["/v1/instances/{ref}/stop"]["post"]["requestBody"]["required"]
    assert paths["/v1/join"]["post"]["security"] == [{}]
    assert paths["/v1/agents/session"]["get"]["x-role"] == "host"
    listed = {p["name"]: p for p in paths["/v1/instances"]["get"]["parameters"]}
    assert listed["all"]["schema"]["type"] == "boolean" and not listed["all"]["required"]
    assert listed["filter"]["schema"]["type"] == "array"
    pull = {p["name"]: p for p in paths["/v1/images/pull"]["post"]["parameters"]}
    assert pull["ref"]["required"]
    lines = paths["/v1/events"]["get"]["responses"]["200"]["content"]
    assert lines["application/x-ndjson"]["schema"]["$ref"].endswith("/Event")
