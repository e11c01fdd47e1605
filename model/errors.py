"""The error tree of flota. Pure.

    FlotaError                     what failed, where, why, and what to do
    ├── InvalidInput               the caller's input is wrong; nothing was changed        (400)
    ├── Unauthenticated            who are you                                             (401)
    ├── Forbidden                  you may not                                             (403)
    ├── NotFound                   no such object                                          (404)
    ├── Ambiguous                  an id prefix or name fits more than one object          (409)
    ├── AlreadyExists              the name is taken                                       (409)
    ├── StaleRevision              the object changed since it was read                    (409)
    ├── InUse                      something still needs the object                        (409)
    ├── WrongState                 the object can't do this now (start of a running one)   (409)
    ├── Damaged                    content does not match its digest, archive is corrupt   (422)
    ├── Unsupported                this host or this version can't do it                   (501)
    ├── Exhausted                  no address, port, disk or memory left                   (507)
    ├── Unavailable                a peer can't be reached now; try again                  (503, retryable)
    ├── DeadlineExceeded           it took too long; it may still happen                   (504, retryable)
    ├── CommandFailed              a program we run (runc, conmon) refused, with its words (500)
    └── Internal                   a bug of ours; the log has the details                  (500)

The API maps `code` to an HTTP status and back by one table (`HTTP_STATUS`), the CLI to exit codes.
Messages are one line for people; `hint` says what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong with an input: where (`path`, dotted, as the user wrote it) and what."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class FlotaError(Exception):
    """Base of every error that flota raises on purpose."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    line: int = 0
    """Of the file that was given, where one is at fault."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class InvalidInput(FlotaError):
    code = "invalid_input"

    def __init__(self, message: str, *, hint: str = "", problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems

    @classmethod
    def of(cls, what: str, problems: tuple[Problem, ...]) -> InvalidInput:
        """Fold all problems of one input into one line."""
        return cls(f"{what}: " + "; ".join(str(p) for p in problems), problems=problems)


class Unauthenticated(FlotaError):
    code = "unauthenticated"


class Forbidden(FlotaError):
    code = "forbidden"


class NotFound(FlotaError):
    code = "not_found"


class Ambiguous(FlotaError):
    code = "ambiguous"


class AlreadyExists(FlotaError):
    code = "already_exists"


class StaleRevision(FlotaError):
    code = "stale_revision"


class InUse(FlotaError):
    code = "in_use"


class WrongState(FlotaError):
    code = "wrong_state"


class Damaged(FlotaError):
    code = "damaged"


class Unsupported(FlotaError):
    code = "unsupported"


class Exhausted(FlotaError):
    code = "exhausted"


class Unavailable(FlotaError):
    code = "unavailable"
    retryable = True


class DeadlineExceeded(FlotaError):
    code = "deadline_exceeded"
    retryable = True


class CommandFailed(FlotaError):
    code = "command_failed"


class Internal(FlotaError):
    code = "internal"


HTTP_STATUS: Mapping[str, int] = {
    InvalidInput.code: 400,
    Unauthenticated.code: 401,
    Forbidden.code: 403,
    NotFound.code: 404,
    Ambiguous.code: 409,
    AlreadyExists.code: 409,
    StaleRevision.code: 409,
    InUse.code: 409,
    WrongState.code: 409,
    Damaged.code: 422,
    Unsupported.code: 501,
    Unavailable.code: 503,
    DeadlineExceeded.code: 504,
    Exhausted.code: 507,
    CommandFailed.code: 500,
    Internal.code: 500,
}

BY_CODE: Mapping[str, type[FlotaError]] = {
    cls.code: cls
    for cls in (
        InvalidInput,
        Unauthenticated,
        Forbidden,
        NotFound,
        Ambiguous,
        AlreadyExists,
        StaleRevision,
        InUse,
        WrongState,
        Damaged,
        Unsupported,
        Exhausted,
        Unavailable,
        DeadlineExceeded,
        CommandFailed,
        Internal,
    )
}


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an error travels: the body of every reply with status >= 400, and of failed stream frames."""

    message: str
    code: str = Internal.code
    hint: str = ""
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, error: FlotaError) -> ErrorBody:
        problems = error.problems if isinstance(error, InvalidInput) else ()
        return cls(message=error.message, code=error.code, hint=error.hint, problems=problems)

    def to_error(self) -> FlotaError:
        """The exception that the other side raised; an unknown code becomes Internal."""
        cls = BY_CODE.get(self.code, Internal)
        if cls is InvalidInput:
            return InvalidInput(self.message, hint=self.hint, problems=self.problems)
        return cls(self.message, hint=self.hint)
