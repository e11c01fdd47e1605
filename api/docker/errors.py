"""What Docker's clients are told of a failure: a status and `{"message": …}`, in words that they know.

docker-py, compose and the docker command tell some failures by their words ("No such image", "Conflict. The
container name"), so ours become Docker's where it has any. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from model.errors import HTTP_STATUS, Ambiguous, Damaged, Exhausted, FlotaError, NotFound, Unsupported


class Refusal(Exception):
    """An answer of Docker's own words. Status 304 has no body."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message


_STATUS: Mapping[str, int] = {
    **HTTP_STATUS,
    Ambiguous.code: 400,
    Damaged.code: 400,
    Exhausted.code: 500,
    Unsupported.code: 501,
}
_NO_SUCH = re.compile(r"no such (container|image|exec instance|network|volume|service|node|task): (.*)")
_WORDS: Mapping[str, str] = {
    "container": "No such container: {}",
    "image": "No such image: {}",
    "exec instance": "No such exec instance: {}",
    "network": "network {} not found",
    "volume": "get {0}: no such volume",
    "service": "service {} not found",
    "node": "node {} not found",
    "task": "task {} not found",
}


def told(error: FlotaError) -> tuple[int, str]:
    """(status, message)."""
    message = error.message
    if isinstance(error, NotFound) and (match := _NO_SUCH.match(message)):
        return 404, _WORDS[match[1]].format(match[2])
    return _STATUS.get(error.code, 500), str(error)
