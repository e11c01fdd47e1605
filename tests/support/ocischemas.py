"""The JSON schemas of OCI's image and runtime specifications themselves (Debian:
golang-github-opencontainers-image-spec-dev, golang-github-opencontainers-specs-dev)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Literal

from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

_OCI = Path("/usr/share/gocode/src/github.com/opencontainers")
_IMAGE, _RUNTIME = _OCI / "image-spec/schema", _OCI / "runtime-spec/schema"
Kind = Literal["config", "image-manifest", "image-index", "image-layout", "runtime-config"]


def _read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


@functools.cache
def _validator(kind: Kind) -> Draft4Validator:
    """Schemas name each other by addresses of which the last part is a file beside them."""
    folder, name = (_RUNTIME, "config") if kind == "runtime-config" else (_IMAGE, kind)

    def named(uri: str) -> Resource[Any]:
        return Resource(_read(folder, uri.rpartition("/")[2]), DRAFT4)

    registry: Registry[Any] = Registry(retrieve=named)
    return Draft4Validator(_read(folder, f"{name}-schema.json"), registry=registry)


def faults(kind: Kind, data: bytes) -> list[str]:
    """What of a document is not as its schema says, by its place; none: it is valid."""
    return [f"{error.json_path}: {error.message}" for error in _validator(kind).iter_errors(json.loads(data))]
