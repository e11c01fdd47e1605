"""What an agent may send in a session, so far as its type alone does not say. Pure.

Invariant: of a message with problems nothing is kept. Whose the addresses of instances are is not asked here,
for it takes the fleet's records (`controller.owned`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from model.blobs import MAX_BLOBS
from model.codec import decode_json, encode_json
from model.errors import InvalidInput, Problem
from model.events import Event
from model.factrules import facts_problems
from model.own import OwnContainer, own_problems
from model.status import HostReport, InstanceStatus
from model.view import View
from model.wire import Hello, Recall, Report

_BLOB = re.compile(r"sha256:[0-9a-f]{64}\Z")
LATEST = 253402300799.0
"""The last second that dates have a word for: that of the year 9999."""


def hello_problems(hello: Hello) -> Iterator[Problem]:
    yield from facts_problems(hello.facts)
    yield from _times(hello.statuses, hello.report, (), hello.own)
    yield from own_problems(hello.own)


def report_problems(report: Report) -> Iterator[Problem]:
    if report.facts is not None:
        yield from facts_problems(report.facts)
    yield from _times(report.statuses, report.report, report.events, report.own)
    yield from own_problems(report.own)
    if report.blobs is not None and len(report.blobs) > MAX_BLOBS:
        yield Problem(path="blobs", message=f"{len(report.blobs)} are more than {MAX_BLOBS}")
    elif not all(map(is_blob, report.blobs or ())):
        yield Problem(path="blobs", message="a digest is none")


def is_blob(digest: str) -> bool:
    return _BLOB.match(digest) is not None


def recall_problems(recall: Recall) -> Iterator[Problem]:
    """Its records are kept, and shown to people in JSON, which has no word for some numbers."""
    yield from _times(recall.statuses, None, ())
    try:
        decode_json(encode_json(recall.view), View)
    except InvalidInput as error:
        yield Problem(path="view", message=error.message)


def _times(
    statuses: Iterable[InstanceStatus],
    report: HostReport | None,
    events: Iterable[Event],
    own: Sequence[OwnContainer] = (),
) -> Iterator[Problem]:
    """The first that is none: JSON has no infinity and no `nan`, so that nobody could read a list with it."""
    every = (*statuses, *(one.status for one in own))
    told = [at for s in every for at in (s.created_at, s.started_at, s.finished_at, s.ready_since)]
    told += [event.at for event in events]
    told += [one.instance.created_at for one in own]
    if report is not None:
        told += [volume.created_at for volume in report.volumes]
        told += [stranger.seen_at for stranger in report.strangers]
    bad = next((at for at in told if not 0 <= at <= LATEST), None)
    if bad is not None:
        yield Problem(path="times", message=f"{bad} is no time")
