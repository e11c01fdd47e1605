"""Readers of strangers' documents: what they refuse is held by nothing that they raise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from image import attestations, indexes, manifest
from image.manifest import OCI_MANIFEST
from image.registry.server import documents
from model.errors import FlotaError

READERS: dict[str, Callable[[bytes], object]] = {
    "manifest": manifest.parse_document,
    "configuration": manifest.parse_configuration,
    "linked": lambda data: indexes.linked(data, ""),
    "media type": indexes.media_type_of,
    "entries": indexes.entries_of,
    "attestation": attestations.read,
    "pushed": lambda data: documents.parse(data, OCI_MANIFEST),
}
BAD = {
    "no json": b"{" + b"x" * 1000,
    "list": b"[1]",
    "wrong": b'{"schemaVersion":7,"mediaType":5,"rootfs":{"diff_ids":[1]},"manifests":[1],"config":[]}',
    "twice": b'{"a":1,"a":2}',
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_error_of_a_reader_holds_nothing_of_the_document(
    read: Callable[[bytes], object], data: bytes
) -> None:
    try:
        read(data)
    except FlotaError as error:
        assert error.__cause__ is None and error.__context__ is None
        trace, names = error.__traceback__, []
        while trace is not None:
            names.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        assert [name for name in names[1:] if name != "<lambda>"] == ["reader"]
    else:
        raise AssertionError("it is no such document")
