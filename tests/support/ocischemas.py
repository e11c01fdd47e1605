"""The image specification's own JSON schemas (Debian: golang-github-opencontainers-image-spec-dev)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Literal

from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

_FOLDER = Path("/usr/share/gocode/src/github.com/opencontainers/image-spec/schema")
Kind = Literal["config", "image-manifest", "image-index", "image-layout"]


def _named(uri: str) -> Resource[Any]:
    """They name each other by addresses of which the last part is a file here."""
    return Resource(json.loads((_FOLDER / uri.rpartition("/")[2]).read_text()), DRAFT4)


@functools.cache
def _validator(kind: Kind) -> Draft4Validator:
    schema = json.loads((_FOLDER / f"{kind}-schema.json").read_text())
    return Draft4Validator(schema, registry=Registry(retrieve=_named))


def faults(kind: Kind, data: bytes) -> list[str]:
    """What of a document is not as its schema says, by its place; none: it is valid."""
    return [f"{error.json_path}: {error.message}" for error in _validator(kind).iter_errors(json.loads(data))]
