"""Verdicts on hosts, from when they were last heard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.liveness import Contact, Policy, assess, patient, settling
from model.ids import HostId
from model.records import Host
from model.spec import HostSpec
from model.status import HostFacts, HostState

POLICY = Policy()
BEGAN = 1000.0


def hosts(**states: HostState) -> dict[HostId, Host]:
    return {
        HostId(name): Host(
            id=HostId(name),
            spec=HostSpec(name=name),
            facts=HostFacts(hostname=name, address="192.0.2.1"),
            state=state,
        )
        for name, state in states.items()
    }


def heard(now: float, **ago: float) -> dict[HostId, Contact]:
    return {HostId(name): Contact(seen=now - seconds, connected=True) for name, seconds in ago.items()}


def states(made: dict[HostId, Host], contacts: dict[HostId, Contact], now: float) -> dict[str, HostState]:
    assessment = assess(made, contacts, POLICY, now=now, began=BEGAN)
    return {str(v.host): v.state for v in assessment.verdicts}


@pytest.mark.parametrize(
    ("ago", "verdict"),
    [(0.0, {}), (1.4, {}), (1.5, {"a": HostState.UNKNOWN}), (3.0, {"a": HostState.LOST})],
)
def test_silence_leads_from_ready_over_unknown_to_lost(ago: float, verdict: dict[str, HostState]) -> None:
    made = hosts(a=HostState.READY, b=HostState.READY, c=HostState.READY, d=HostState.READY)
    assert states(made, heard(2000, a=ago, b=0, c=0, d=0), 2000) == verdict


def test_ended_connection_is_unknown_at_once_and_lost_only_by_silence() -> None:
    made = hosts(a=HostState.READY, b=HostState.READY)
    contacts = {**heard(2000, b=0), HostId("a"): Contact(seen=1999.9, connected=False)}
    assert states(made, contacts, 2000) == {"a": HostState.UNKNOWN}


def test_announced_silence_is_no_loss_until_it_has_lasted_longer() -> None:
    made = hosts(a=HostState.READY, b=HostState.READY, c=HostState.READY)
    for now, verdict in ((2059.9, HostState.UNKNOWN), (2060.0, HostState.LOST)):
        away = Contact(seen=2000, connected=False, excused_until=2060)
        contacts = {**heard(now, b=0, c=0), HostId("a"): away}
        assert states(made, contacts, now) == {"a": verdict}
    found = assess(made, {**heard(2010, b=0, c=0), HostId("a"): away}, POLICY, now=2010, began=BEGAN)
    assert found.next_at is not None and found.next_at <= 2060


def test_announced_silences_hold_nobody_elses_loss_back() -> None:
    made = hosts(a=HostState.READY, b=HostState.READY, c=HostState.READY)
    away = Contact(seen=1990, connected=False, excused_until=2060)
    contacts = {**heard(2000, b=3, c=0), HostId("a"): away}
    assert states(made, contacts, 2000) == {"a": HostState.UNKNOWN, "b": HostState.LOST}


def test_one_of_three_lost_proceeds_and_two_of_three_are_held() -> None:
    made = hosts(a=HostState.READY, b=HostState.READY, c=HostState.READY)
    assert states(made, heard(2000, a=3, b=0, c=0), 2000) == {"a": HostState.LOST}
    held = assess(made, heard(2000, a=3, b=2.9, c=0), POLICY, now=2000, began=BEGAN)
    assert {v.state for v in held.verdicts} == {HostState.UNKNOWN}
    assert held.held.startswith("2 of 3 hosts vanished at once")
    later = heard(2000, a=33.1, b=33, c=0)
    assert states(made, later, 2000) == {"a": HostState.LOST, "b": HostState.LOST}


def test_all_vanished_is_held_for_good() -> None:
    made = hosts(a=HostState.UNKNOWN, b=HostState.UNKNOWN)
    found = assess(made, heard(2000, a=900, b=900), POLICY, now=2000, began=BEGAN)
    assert found.verdicts == () and "itself is probably cut off" in found.held


def test_two_losses_one_after_the_other_are_not_held() -> None:
    made = hosts(a=HostState.LOST, b=HostState.UNKNOWN, c=HostState.READY, d=HostState.READY)
    assert states(made, heard(2000, a=60, b=3, c=0, d=0), 2000) == {"b": HostState.LOST}


def test_lost_host_does_not_come_back_by_a_late_answer() -> None:
    assert states(hosts(a=HostState.LOST), heard(2000, a=0), 2000) == {}


def test_host_that_answers_again_is_ready() -> None:
    assert states(hosts(a=HostState.UNKNOWN), heard(2000, a=0), 2000) == {"a": HostState.READY}


def test_host_that_never_joined_a_session_is_not_judged() -> None:
    assert states(hosts(a=HostState.JOINING), {}, 9999) == {}


@pytest.mark.parametrize(
    ("after", "verdict"), [(1.0, {}), (2.0, {"a": HostState.UNKNOWN}), (10.0, {"a": HostState.LOST})]
)
def test_new_controller_gives_a_term(after: float, verdict: dict[str, HostState]) -> None:
    now = BEGAN + after
    made = hosts(a=HostState.READY, b=HostState.READY, c=HostState.READY, d=HostState.READY)
    assert states(made, heard(now, b=0, c=0, d=0), now) == verdict


def test_second_loss_in_a_while_makes_a_host_settle_ever_longer() -> None:
    def until(*lost: float) -> float:
        contact = Contact(seen=2000, connected=True, lost_at=lost, back_at=2000)
        return settling({HostId("a"): contact}, POLICY, 2001).get(HostId("a"), 0.0) - 2000

    assert until(1990) < 0
    assert until(1980, 1990) == 10
    assert until(1970, 1980, 1990) == 20
    assert until(1000, 1990) < 0, "an old loss is forgiven"


@given(
    st.lists(st.tuples(st.sampled_from(list(HostState)), st.floats(0, 100), st.booleans()), max_size=8),
    st.floats(0, 100),
)
def test_next_look_is_in_the_future_and_verdicts_are_differences(
    given_hosts: list[tuple[HostState, float, bool]], age: float
) -> None:
    now = BEGAN + age
    made = hosts(**{f"h{n}": state for n, (state, _, _) in enumerate(given_hosts)})
    contacts = {
        HostId(f"h{n}"): Contact(seen=now - ago, connected=connected)
        for n, (_, ago, connected) in enumerate(given_hosts)
        if ago < age
    }
    found = assess(made, contacts, POLICY, now=now, began=BEGAN)
    assert found.next_at is None or found.next_at > now
    for verdict in found.verdicts:
        assert made[verdict.host].state is not verdict.state
        assert made[verdict.host].state not in (HostState.JOINING, HostState.LOST)


def test_patience_with_slow_hosts_keeps_the_order_of_verdicts_and_none_is_the_usual() -> None:
    assert patient(0) == Policy()
    slow = patient(20)
    assert (slow.unknown_after, slow.lost_after, slow.start_term) == (10, 20, 60)
    assert patient(0.1).unknown_after <= patient(0.1).lost_after
