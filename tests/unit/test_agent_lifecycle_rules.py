"""The lifecycle as a pure machine: tables for what follows what, and random lives that never go wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent import lifecycle
from agent.record import Local, impossible, intends, status_of
from agent.runtime.base import Created, Exit
from agent.steps import Action, Outcome, Step
from model.ids import InstanceId, NetworkId, ServiceId
from model.records import Desired, Instance, ResolvedAttachment
from model.spec import ContainerSpec, Publish, RestartPolicy
from model.status import Endpoint, Phase

BOX = InstanceId("1" * 64)
CREATED = Created(pid=10, conmon_pid=9, conmon_started=5)
ALWAYS = RestartPolicy(condition="always", delay=1.0, max_delay=60.0)


def want(
    desired: Desired = Desired.RUNNING, *, attempt: int = 1, force: bool = False, **spec: object
) -> Instance:
    made = ContainerSpec(image="x", **spec)  # type: ignore[arg-type]
    return Instance(id=BOX, name="box", spec=made, desired=desired, attempt=attempt, force=force)


def wired(*attachments: ResolvedAttachment) -> Instance:
    return replace(want(), attachments=attachments)


def local(**fields: object) -> Local:
    return Local(instance=BOX, **fields)  # type: ignore[arg-type]


ROOTED = local(attempt=1, rooted=True, phase=Phase.CREATED)
PREPARED = replace(ROOTED, making=True, prepared=True)
HELD = replace(PREPARED, created=CREATED, boot_id="b")
RUNNING = replace(HELD, started=True, phase=Phase.RUNNING, started_at=50.0)
OVER = replace(RUNNING, ended=True, phase=Phase.STOPPING, exit_code=1, finished_at=60.0)
EXITED = local(attempt=1, rooted=True, phase=Phase.EXITED, exit_code=1)
FAILED = local(attempt=1, rooted=True, phase=Phase.FAILED, exit_code=127)
WAITING = replace(EXITED, phase=Phase.RESTARTING, retry_at=105.0, failures=1, restarts=1)

NET = ResolvedAttachment(network=NetworkId("n" * 64))
OTHER = ResolvedAttachment(network=NetworkId("o" * 64))
FOOT = Endpoint(network=NET.network, network_name="n", ifname="eth0")
WIRED = replace(RUNNING, attached=(NET,), published=())
NEXT = [
    ("new", local(), want(), Step.ROOT),
    ("rooted", ROOTED, want(), Step.PREPARE),
    ("prepared", PREPARED, want(), Step.CREATE),
    ("held", HELD, want(), Step.START),
    ("running", RUNNING, want(), None),
    ("over", OVER, want(), Step.CLEAN),
    ("exited", EXITED, want(), None),
    ("failed", FAILED, want(), None),
    ("half made and failed", replace(FAILED, making=True), want(), Step.CLEAN),
    ("started again", EXITED, want(attempt=2), Step.PREPARE),
    ("restarted", RUNNING, want(attempt=2), Step.STOP),
    ("waits", WAITING, want(restart=ALWAYS), Step.WAIT),
    ("clock went back", replace(WAITING, retry_at=9000.0), want(restart=ALWAYS), Step.PREPARE),
    ("on its networks", WIRED, replace(want(), attachments=(NET,)), None),
    ("to be connected", WIRED, replace(want(), attachments=(NET, OTHER)), Step.WIRE),
    ("to be disconnected, paused", replace(WIRED, paused=True), want(Desired.PAUSED), Step.WIRE),
    ("to be connected before it starts", replace(HELD, attached=(), published=()), wired(NET), Step.WIRE),
    ("connected and restarted", WIRED, replace(wired(NET, OTHER), attempt=2), Step.STOP),
    ("to publish", WIRED, replace(want(ports=(Publish(target=80),)), attachments=(NET,)), Step.WIRE),
    ("cut short while it was connected", replace(WIRED, rewiring=True), wired(NET), Step.WIRE),
    ("of an older agent, as it should be", replace(RUNNING, endpoints=(FOOT,)), wired(NET), None),
    ("of an older agent, to be connected", RUNNING, wired(NET), Step.WIRE),
    ("stopped, connected", EXITED, replace(wired(NET), desired=Desired.STOPPED), None),
    ("to pause", RUNNING, want(Desired.PAUSED), Step.PAUSE),
    ("paused", replace(RUNNING, paused=True), want(Desired.PAUSED), None),
    ("to resume", replace(RUNNING, paused=True), want(), Step.RESUME),
    ("perhaps paused, to run", replace(RUNNING, switching=True), want(), Step.RESUME),
    (
        "perhaps resumed, to pause",
        replace(RUNNING, paused=True, switching=True),
        want(Desired.PAUSED),
        Step.PAUSE,
    ),
    ("to stop", RUNNING, want(Desired.STOPPED), Step.STOP),
    ("held, to stop", HELD, want(Desired.STOPPED), Step.STOP),
    ("half made, to stop", PREPARED, want(Desired.STOPPED), Step.CLEAN),
    ("waits, to stop", WAITING, want(Desired.STOPPED), Step.SETTLE),
    ("pulling, to stop", local(attempt=1, phase=Phase.PULLING), want(Desired.STOPPED), Step.SETTLE),
    ("stopped", EXITED, want(Desired.STOPPED), None),
    ("to create", local(), want(Desired.CREATED), Step.ROOT),
    ("created", ROOTED, want(Desired.CREATED), None),
    ("leaves by itself", EXITED, want(auto_remove=True), Step.REMOVE),
    ("leaves by itself, failed", FAILED, want(auto_remove=True), Step.REMOVE),
    ("created in vain, yet to be told", FAILED, want(Desired.CREATED, auto_remove=True), None),
    ("to remove, running", RUNNING, want(Desired.REMOVED), Step.STOP),
    ("to remove, half made", PREPARED, want(Desired.REMOVED), Step.CLEAN),
    ("to remove", EXITED, want(Desired.REMOVED), Step.REMOVE),
    ("nobody's, running", RUNNING, None, Step.STOP),
    ("nobody's", EXITED, None, Step.REMOVE),
    ("removed", local(phase=Phase.REMOVED), want(Desired.REMOVED), None),
]


@pytest.mark.parametrize(("record", "wish", "step"), [row[1:] for row in NEXT], ids=[row[0] for row in NEXT])
def test_next_action_is_the_one_step_towards_the_wish(
    record: Local, wish: Instance | None, step: Step | None
) -> None:
    action = lifecycle.next_action(record, wish, hold=False, now=100.0)
    assert (action.step if action else None) is step
    assert impossible(record) == ""


def test_a_client_that_waits_to_attach_has_the_process_made_but_not_started() -> None:
    action = lifecycle.next_action(ROOTED, want(Desired.CREATED), hold=True, now=0.0)
    assert action is not None and action.step is Step.PREPARE
    assert lifecycle.next_action(HELD, want(Desired.CREATED), hold=True, now=0.0) is None


def test_a_client_that_attaches_to_what_has_ended_has_its_next_attempt_made_once() -> None:
    wish = want(Desired.CREATED, attempt=2)
    assert lifecycle.next_action(EXITED, wish, hold=False, now=0.0) is None
    action = lifecycle.next_action(EXITED, wish, hold=True, now=0.0)
    assert action is not None and action.step is Step.PREPARE
    failed = replace(FAILED, attempt=2)
    assert lifecycle.next_action(failed, wish, hold=True, now=0.0) is None


def test_a_process_that_was_never_let_go_is_stopped_without_grace() -> None:
    action = lifecycle.next_action(HELD, want(Desired.STOPPED), hold=False, now=0.0)
    assert action is not None and action.force


def test_a_pause_that_failed_or_was_cut_short_leaves_open_what_it_did() -> None:
    pause = Action(step=Step.PAUSE, why="")
    begun = lifecycle.begun(RUNNING, pause)
    assert intends(RUNNING, begun) and not begun.paused
    for known in (
        begun,
        lifecycle.after(begun, want(Desired.PAUSED), pause, Outcome(error="no answer"), 1.0),
        lifecycle.recovered(begun, boot_id="b", released=False, now=1.0),
    ):
        action = lifecycle.next_action(known, want(), hold=False, now=1.0)
        assert action is not None and action.step is Step.RESUME
        thawed = lifecycle.after(lifecycle.begun(known, action), want(), action, Outcome(), 2.0)
        assert (thawed.paused, thawed.switching) == (False, False)
        assert impossible(lifecycle.exited(known, Exit(code=0), 2.0)) == ""


def test_a_request_that_comes_during_a_start_is_not_swallowed() -> None:
    start = Action(step=Step.START, why="")
    for outcome in (Outcome(), Outcome(error="no")):
        after = lifecycle.after(lifecycle.begun(HELD, start), want(attempt=2), start, outcome, 1.0)
        assert after.attempt == 1


def test_in_another_boot_nothing_lives_and_its_code_is_not_invented() -> None:
    lost = lifecycle.recovered(RUNNING, boot_id="c", released=False, now=100.0)
    assert (lost.ended, lost.created, lost.exit_code) == (True, None, None)
    assert lifecycle.recovered(RUNNING, boot_id="b", released=False, now=100.0) == RUNNING


def test_one_that_was_let_go_when_the_agent_died_counts_as_started() -> None:
    known = lifecycle.recovered(HELD, boot_id="b", released=True, now=100.0)
    assert known.started and known.attempt == 1
    over = lifecycle.exited(known, Exit(code=7, at=101.0), 102.0)
    assert over.exit_code == 7


@pytest.mark.parametrize(
    ("policy", "record", "again"),
    [
        (RestartPolicy(), OVER, False),
        (ALWAYS, OVER, True),
        (ALWAYS, replace(OVER, exit_code=0), True),
        (ALWAYS, replace(OVER, killed=True), False),
        (ALWAYS, replace(OVER, phase=Phase.FAILED, started=False), False),
        (ALWAYS, replace(OVER, phase=Phase.FAILED, started=False, failures=1), True),
        (RestartPolicy(condition="on-failure"), replace(OVER, exit_code=0), False),
        (RestartPolicy(condition="on-failure"), replace(OVER, exit_code=None), True),
        (RestartPolicy(condition="on-failure", max_attempts=2), replace(OVER, restarts=2), False),
    ],
)
def test_restart_policies(policy: RestartPolicy, record: Local, again: bool) -> None:
    clean = Action(step=Step.CLEAN, why="")
    after = lifecycle.after(record, want(restart=policy), clean, Outcome(), 100.0)
    assert (after.phase is Phase.RESTARTING) is again
    assert not after.making


def test_back_off_doubles_and_a_run_that_lasted_resets_it() -> None:
    clean = Action(step=Step.CLEAN, why="")
    waits, record = [], OVER
    for _ in range(8):
        after = lifecycle.after(record, want(restart=ALWAYS), clean, Outcome(), 100.0)
        waits.append(after.retry_at - 100.0)
        record = replace(OVER, started_at=59.0, failures=after.failures)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    lasted = replace(record, started_at=0.0, finished_at=60.0)
    assert lifecycle.after(lasted, want(restart=ALWAYS), clean, Outcome(), 100.0).retry_at == 101.0


# -- random lives ------------------------------------------------------------------------------------------
ORDER = [
    *(Phase.ASSIGNED, Phase.PULLING, Phase.PREPARING, Phase.CREATED, Phase.STARTING, Phase.RUNNING),
    *(Phase.STOPPING, Phase.RESTARTING, Phase.EXITED, Phase.FAILED, Phase.REMOVED),
]
ENDS = st.sampled_from([0, 1, 137, None])
EVENTS = st.one_of(
    st.tuples(st.just("step"), st.sampled_from(["done", "error", "interrupted"])),
    st.tuples(st.just("exit"), ENDS),
    st.tuples(st.just("wish"), st.sampled_from([*Desired, None])),
    st.tuples(st.just("again"), st.none()),
    st.tuples(st.just("kill"), st.none()),
    st.tuples(st.just("connect"), st.sampled_from([(), (NET,), (NET, OTHER)])),
    st.tuples(st.just("crash"), st.sampled_from(["same boot", "other boot", "let go"])),
    st.tuples(st.just("time"), st.floats(0, 100)),
)
SPECS = st.builds(
    lambda policy, auto: {"restart": policy, "auto_remove": auto},
    st.sampled_from([RestartPolicy(), ALWAYS, RestartPolicy(condition="on-failure", max_attempts=2)]),
    st.booleans(),
)
OUTCOME = {
    Step.ROOT: Outcome(image_id="sha256:x"),
    Step.CREATE: Outcome(created=CREATED, boot_id="b"),
}


class Life:
    """Plays events as a worker would, and checks what must hold after each."""

    def __init__(self, spec: dict[str, object]) -> None:
        self.spec = spec
        self.record = local()
        self.wish: Instance | None = want(**spec)
        self.now = 100.0
        self.ends = 0
        self.starts = 0

    def set(self, record: Local, *, crashed: bool = False) -> None:
        assert impossible(record) == "", (self.record, record)
        old = self.record
        same = old.attempt == record.attempt
        if same and not crashed and record.phase is not old.phase:
            up = ORDER.index(record.phase) > ORDER.index(old.phase)
            again = old.phase is Phase.RESTARTING or Phase.RUNNING in (old.phase, record.phase)
            undone = not record.making and not record.started
            assert up or again or undone, (old.phase, record.phase)
        assert record.attempt >= old.attempt and record.restarts >= (old.restarts if same else 0)
        self.record = record
        status_of(record)

    def play(self, kind: str, value: object) -> None:
        getattr(self, f"_{kind}")(value)

    def _step(self, how: str) -> None:
        action = lifecycle.next_action(self.record, self.wish, hold=False, now=self.now)
        if action is None or action.step is Step.WAIT:
            return
        self.set(lifecycle.begun(self.record, action))
        outcome = OUTCOME.get(action.step, Outcome())
        if action.step in (Step.PREPARE, Step.WIRE) and self.wish is not None:
            outcome = Outcome(attached=self.wish.attachments, published=self.wish.spec.ports)
        if how == "error":
            outcome = Outcome(error="no")
        elif how == "interrupted" and action.step in lifecycle.INTERRUPTIBLE:
            outcome = Outcome(interrupted=True)
        self.starts += action.step is Step.START and how != "error"
        self.set(lifecycle.after(self.record, self.wish, action, outcome, self.now))
        if action.step is Step.STOP and not outcome.error and not outcome.interrupted:
            self._exit(143)

    def _exit(self, code: int | None) -> None:
        live = self.record.running
        after = lifecycle.exited(self.record, Exit(code=code, at=self.now), self.now)
        self.ends += live and after.ended
        self.set(after)
        assert lifecycle.exited(after, Exit(code=99), self.now) == after

    def _wish(self, desired: Desired | None) -> None:
        if self.wish is not None and self.wish.desired is not Desired.REMOVED:
            self.wish = None if desired is None else replace(self.wish, desired=desired)

    def _again(self, _: None) -> None:
        if self.wish is not None and self.wish.desired is not Desired.REMOVED:
            self.wish = replace(self.wish, desired=Desired.RUNNING, attempt=self.wish.attempt + 1)

    def _connect(self, attachments: tuple[ResolvedAttachment, ...]) -> None:
        if self.wish is not None:
            self.wish = replace(self.wish, attachments=attachments)

    def _kill(self, _: None) -> None:
        self.set(lifecycle.killed(self.record))

    def _crash(self, how: str) -> None:
        boot = "c" if how == "other boot" else "b"
        before = self.record.running
        after = lifecycle.recovered(self.record, boot_id=boot, released=how == "let go", now=self.now)
        self.starts += after.started and not self.record.started
        self.ends += before and after.ended
        self.set(after, crashed=True)

    def _time(self, seconds: float) -> None:
        self.now += seconds


@settings(max_examples=400, deadline=None)
@given(SPECS, st.lists(EVENTS, max_size=60))
def test_no_life_is_impossible_and_every_life_can_end(
    spec: dict[str, object], events: list[tuple[str, object]]
) -> None:
    life = Life(spec)
    for kind, value in events:
        life.play(kind, value)
    life._wish(None)
    for _ in range(12):
        life._step("done")
    assert life.record.phase is Phase.REMOVED
    assert life.ends == life.starts
    assert lifecycle.next_action(life.record, None, hold=False, now=life.now) is None


def replaced(**spec: object) -> Instance:
    return replace(want(Desired.REMOVED, **spec), service=ServiceId("s" * 64), attachments=(NET,))


def test_drain_counts_from_the_word_of_the_other_hosts_but_waits_only_so_long_for_it() -> None:
    running, wish = replace(WIRED, endpoints=(FOOT,)), replaced(drain=2.0)

    def step(record: Local, now: float, *, departing: bool) -> Action:
        action = lifecycle.next_action(record, wish, hold=False, now=now, departing=departing)
        assert action is not None
        return action

    action = step(running, 100.0, departing=False)
    assert (action.step, action.until) == (Step.DRAIN, 100.0 + lifecycle.PATIENCE + 2.0)
    leaving = lifecycle.begun(running, action)
    assert step(leaving, 101.0, departing=False).step is Step.WAIT
    assert step(leaving, 107.0, departing=False).step is Step.STOP, "nobody has said anything"
    told = step(leaving, 101.0, departing=True)
    assert (told.step, told.until) == (Step.DRAIN, 103.0)
    drains = lifecycle.begun(leaving, told)
    assert step(drains, 102.0, departing=True).step is Step.WAIT
    assert step(drains, 103.0, departing=True).step is Step.STOP
    late = step(leaving, 106.5, departing=True)
    assert late.until == action.until, "a late word makes nothing longer"
    again = lifecycle.after(drains, wish, Action(step=Step.START, why=""), Outcome(), 200.0)
    assert not again.departing and again.drained_at == 0


def test_service_instance_is_stopped_only_after_its_drain() -> None:
    running = replace(WIRED, endpoints=(FOOT,))
    wish = replaced(drain=2.0)
    action = lifecycle.next_action(running, wish, hold=False, now=100.0)
    assert action is not None and (action.step, action.until) == (Step.DRAIN, 102.0)
    draining = lifecycle.after(lifecycle.begun(running, action), wish, action, Outcome(), 100.0)
    waits = lifecycle.next_action(draining, wish, hold=False, now=100.0)
    assert waits is not None and (waits.step, waits.until) == (Step.WAIT, 102.0)
    assert draining.phase is Phase.RUNNING
    for now in (102.0, 50.0):  # its time has come; the wall clock went back
        stops = lifecycle.next_action(draining, wish, hold=False, now=now)
        assert stops is not None and stops.step is Step.STOP


@pytest.mark.parametrize(
    ("record", "wish"),
    [
        (replace(WIRED, endpoints=(FOOT,)), replaced(drain=0.0)),
        (replace(WIRED, endpoints=(FOOT,)), replace(replaced(), force=True)),
        (replace(WIRED, endpoints=(FOOT,)), replace(replaced(), service=None)),
        (replace(WIRED, endpoints=(replace(FOOT, network=NetworkId("bridge")),)), replaced()),
        (WIRED, replaced()),
        (HELD, replaced()),
    ],
)
def test_what_nobody_is_sent_to_is_stopped_at_once(record: Local, wish: Instance) -> None:
    action = lifecycle.next_action(record, wish, hold=False, now=100.0)
    assert action is not None and action.step is Step.STOP


def test_start_waits_for_those_who_judge_it_but_only_so_long() -> None:
    def step(now: float, until: float) -> Step:
        action = lifecycle.next_action(HELD, want(), hold=False, now=now, admitted_by=until)
        assert action is not None
        return action.step

    assert step(100.0, 0.0) is Step.START
    assert step(100.0, 100.9) is Step.WAIT
    assert step(101.0, 100.9) is Step.START
    assert step(100.0, 200.0) is Step.START, "the clock went back meanwhile"
