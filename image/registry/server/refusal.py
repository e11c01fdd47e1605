"""The errors of a registry, by the codes of the distribution specification ("Error Codes"). Pure.

Invariant: every answer with a status of 400 or more has a body of that form, with a code of the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from model.errors import (
    Damaged,
    DeadlineExceeded,
    Exhausted,
    FlotaError,
    Forbidden,
    InvalidInput,
    NotFound,
    Unauthenticated,
    Unavailable,
)

Word = Literal[
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
    "UNKNOWN",
]
STATUS: Mapping[Word, int] = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 404,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "SIZE_INVALID": 400,
    "UNAUTHORIZED": 401,
    "DENIED": 403,
    "UNSUPPORTED": 405,
    "TOOMANYREQUESTS": 429,
    "UNKNOWN": 500,
}
"""Without another one said. `UNKNOWN` is no code of the specification but what the field uses for a
registry's own trouble."""


class Refusal(FlotaError):
    """A request that is not done, and why."""

    def __init__(
        self,
        word: Word,
        message: str,
        *,
        status: int = 0,
        hint: str = "",
        detail: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.word = word
        self.status = status or STATUS[word]
        self.detail = detail
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        entry: dict[str, Any] = {"code": self.word, "message": str(self)}
        if self.detail is not None:
            entry["detail"] = self.detail
        return msgspec.json.encode({"errors": [entry]})


_OTHERS: Mapping[type[FlotaError], tuple[Word, int]] = {
    Unauthenticated: ("UNAUTHORIZED", 401),
    Forbidden: ("DENIED", 403),
    NotFound: ("NAME_UNKNOWN", 404),
    InvalidInput: ("UNSUPPORTED", 400),
    Damaged: ("UNKNOWN", 500),
    Exhausted: ("UNKNOWN", 507),
    Unavailable: ("UNKNOWN", 503),
    DeadlineExceeded: ("UNKNOWN", 408),
}


def refusal_of(error: FlotaError) -> Refusal:
    """Any of flota's errors in a registry's words."""
    if isinstance(error, Refusal):
        return error
    word, status = next((pair for kind, pair in _OTHERS.items() if isinstance(error, kind)), ("UNKNOWN", 500))
    return Refusal(word, error.message, status=status, hint=error.hint)
