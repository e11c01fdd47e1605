"""A Plan: what a decision wants to write, each item with its reason. Pure.

Invariant: a plan is a value that can be printed and compared; nothing is written that is not in one, and
`to_txn` adds nothing but the leader's epoch.
"""

from __future__ import annotations

from collections.abc import Iterable

from controller.snapshot import key_of
from controller.store.base import Txn
from model.events import Event
from model.records import Instance, Record
from model.spec import Struct


class Item(Struct):
    """One write and why. The record carries the revision it was read at (0: it is new)."""

    record: Record
    reason: str
    delete: bool = False

    def __str__(self) -> str:
        kind, ident = key_of(self.record)
        name = self.record.name if isinstance(self.record, Instance) else ident[:12]
        verb = "delete" if self.delete else "change" if self.record.revision else "create"
        return f"{verb} {kind} {name}: {self.reason}"


class Plan(Struct):
    """`retry_at` is when the decision would differ by the passing of time alone (unix seconds)."""

    items: tuple[Item, ...] = ()
    events: tuple[Event, ...] = ()
    """To be told once the plan is durable."""
    retry_at: float | None = None
    subject: str = ""
    """Id of the object that a command made or changed."""

    @property
    def empty(self) -> bool:
        return not self.items


def put(record: Record, reason: str) -> Item:
    return Item(record=record, reason=reason)


def delete(record: Record, reason: str) -> Item:
    return Item(record=record, reason=reason, delete=True)


def merged(plans: Iterable[Plan]) -> Plan:
    """Several plans as one commit; they must not write the same record."""
    every = tuple(plans)
    due = [plan.retry_at for plan in every if plan.retry_at is not None]
    return Plan(
        items=tuple(item for plan in every for item in plan.items),
        events=tuple(event for plan in every for event in plan.events),
        retry_at=min(due, default=None),
        subject=next((plan.subject for plan in every if plan.subject), ""),
    )


def to_txn(plan: Plan, epoch: int) -> Txn:
    return Txn(
        puts=tuple(item.record for item in plan.items if not item.delete),
        deletes=tuple(item.record for item in plan.items if item.delete),
        epoch=epoch,
    )
