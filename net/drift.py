"""What was changed behind our back, in words for people. Pure."""

from __future__ import annotations

from model.ids import short
from net.diff import Op, Operation, describe
from net.host import Drift
from net.servicechains import TABLE
from net.state import Route


def drift_of(operation: Operation) -> Drift:
    if isinstance(operation, Op):
        words = {"add": "was missing, made again", "change": "was changed, set back"}
        if isinstance(operation.item, Route):
            words["change"] = "was missing or led elsewhere, set back"
        action = words.get(operation.verb, "was not ours to have, removed")
        return Drift(object=describe(operation.item), action=action)
    action = "was missing or changed, made again" if operation.whole else "elements differed, set back"
    return Drift(object=f"nft table {operation.family} flota", action=action)


def held_again(instance: str) -> Drift:
    return Drift(object=f"network namespace of {short(instance)}", action="was not held any more, held again")


def services_drift(wrong: int) -> Drift:
    """`wrong`: how many elements and chains were not as they should be."""
    return Drift(object=f"nft table inet {TABLE}", action=f"{wrong} elements or chains differed, set back")


def not_repaired(failure: Exception) -> Drift:
    return Drift(object="network", action=f"not repaired: {failure}", failed=True)
