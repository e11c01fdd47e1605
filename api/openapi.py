"""The OpenAPI 3.1 document of a route table: paths from the routes, schemas from the types."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable
from typing import Any

import msgspec

from api.routes.route import NoQuery, Route
from model.errors import ErrorBody
from model.version import VERSION

REF = "#/components/schemas/{name}"


def document(routes: Iterable[Route[Any]]) -> dict[str, Any]:
    """Everything that the routes take and answer."""
    table = tuple(routes)
    types = list(dict.fromkeys(t for r in table for t in (r.body, r.reply) if t is not None))
    types.append(ErrorBody)
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(_path(route.path), {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "flota", "version": VERSION},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"mutualTLS": {"type": "mutualTLS"}}},
        "security": [{"mutualTLS": []}],
    }


def _path(path: str) -> str:
    return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)


def _operation(route: Route[Any], schema_of: dict[Any, Any]) -> dict[str, Any]:
    error = {"content": {"application/json": {"schema": schema_of[ErrorBody]}}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.handler.__module__.rpartition('.')[2]}.{route.handler.__name__}",
        "x-role": route.role,
        "parameters": [*_path_parameters(route.path), *_query_parameters(route.query)],
        "responses": {_status(route): _success(route, schema_of), "4XX": error, "5XX": error},
    }
    for status in ("4XX", "5XX"):
        operation["responses"][status] = {"description": "What failed, why, and what to do", **error}
    if route.role == "anonymous":
        operation["security"] = [{}]
    if route.body is not None:
        content = {"application/json": {"schema": schema_of[route.body]}}
        operation["requestBody"] = {"required": not route.body_optional, "content": content}
    elif route.kind == "stream" and route.method == "POST":
        operation["requestBody"] = {"content": {"application/octet-stream": {}}}
    return operation


def _status(route: Route[Any]) -> str:
    return "204" if route.reply is None and route.kind != "stream" else "200"


def _success(route: Route[Any], schema_of: dict[Any, Any]) -> dict[str, Any]:
    if route.reply is None:
        if route.kind != "stream":
            return {"description": "Done"}
        return {"description": "A stream of frames", "content": {"application/vnd.flota.stream": {}}}
    kind = "application/x-ndjson" if route.kind == "stream" else "application/json"
    return {"description": route.summary, "content": {kind: {"schema": schema_of[route.reply]}}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)", path)
    return [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]


def _query_parameters(type_: Any) -> list[dict[str, Any]]:
    if type_ is NoQuery:
        return []
    schema = msgspec.json.schema(type_)
    described = schema["$defs"][type_.__name__] if "$defs" in schema else schema
    required = described.get("required", [])
    hints = typing.get_type_hints(type_)
    return [
        {"name": name, "in": "query", "required": name in required, "schema": described["properties"][name]}
        for name in hints
    ]
