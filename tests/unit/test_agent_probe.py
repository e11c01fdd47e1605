"""Health as a rule: which check applies, when to look next, and what each result makes of the state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.probe import Check, HealthState, Watch, effective, folded, pause, watch_of
from model.health import ProbeResult
from model.ids import InstanceId, ServiceId
from model.image import ImageConfig
from model.records import Instance
from model.spec import ContainerSpec, ExecProbe, HealthCheck, Publish, ShellProbe, TcpProbe

TRUE, TCP = ExecProbe(args=("true",)), TcpProbe(port=80)
STARTED = 1000.0


def result(code: int, start: float = STARTED, output: str = "") -> ProbeResult:
    return ProbeResult(start=start, end=start + 0.1, exit_code=code, output=output)


@pytest.mark.parametrize(
    ("wish", "image", "check"),
    [
        (None, None, None),
        (HealthCheck(interval=5.0), None, None),
        (None, HealthCheck(interval=5.0), None),
        (None, HealthCheck(probe=TRUE), Check(probe=TRUE)),
        (HealthCheck(disabled=True), HealthCheck(probe=TRUE), None),
        (None, HealthCheck(disabled=True), None),
        (HealthCheck(interval=1.0), HealthCheck(disabled=True), None),
        (HealthCheck(probe=TCP), HealthCheck(disabled=True), Check(probe=TCP)),
        (
            HealthCheck(interval=5.0, retries=1),
            HealthCheck(probe=TRUE, interval=7.0, timeout=2.0, start_period=9.0),
            Check(probe=TRUE, interval=5.0, retries=1, timeout=2.0, start_period=9.0),
        ),
        (
            HealthCheck(probe=TCP, start_interval=1.0),
            HealthCheck(probe=TRUE, retries=9),
            Check(probe=TCP, retries=9, start_interval=1.0),
        ),
    ],
)
def test_check_that_applies_is_merged_as_docker_does(
    wish: HealthCheck | None, image: HealthCheck | None, check: Check | None
) -> None:
    assert effective(wish, image) == check


def test_probes_are_close_while_it_starts_and_by_the_interval_afterwards() -> None:
    check = Check(probe=TCP)
    pauses = [pause(check, HealthState(), n) for n in range(1, 10)]
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert pause(check, HealthState(status="healthy"), 1) == 30.0
    assert pause(check, HealthState(status="unhealthy"), 1) == 30.0
    assert pause(Check(probe=TCP, interval=0.5), HealthState(), 9) == 0.5


def test_one_success_makes_it_healthy_whatever_was_before() -> None:
    for status in ("starting", "healthy", "unhealthy"):
        before = HealthState(status=status, streak=2, counted_at=5.0, message="x")  # type: ignore[arg-type]
        assert folded(Check(probe=TCP), before, result(0), STARTED) == HealthState(status="healthy")


def test_healthy_one_is_unhealthy_after_retries_in_a_row() -> None:
    check, state = Check(probe=TCP, retries=2), HealthState(status="healthy")
    state = folded(check, state, result(1, STARTED + 60, "a\nno answer\n"), STARTED)
    assert (state.status, state.streak, state.message) == ("healthy", 1, "no answer")
    state = folded(check, state, result(-1, STARTED + 90), STARTED)
    assert (state.status, state.streak, state.message) == ("unhealthy", 2, "its check exited with -1")
    assert folded(check, state, result(1, STARTED + 120), STARTED).streak == 3


def life(check: Check, until: float) -> float | None:
    """When one that never answers is called unhealthy, in seconds from its start."""
    state, at, probed = HealthState(), STARTED, 0
    while at < STARTED + until:
        probed += 1
        state = folded(check, state, result(1, at), STARTED)
        if state.status == "unhealthy":
            return at - STARTED
        at += pause(check, state, probed)
    return None


@pytest.mark.parametrize(
    ("check", "earliest"),
    [
        (Check(probe=TCP), 90.0),
        (Check(probe=TCP, interval=1.0, retries=1), 1.0),
        (Check(probe=TCP, interval=10.0, retries=2, start_period=60.0), 70.0),
        (Check(probe=TCP, interval=60.0, retries=1, start_period=5.0, start_interval=1.0), 60.0),
    ],
)
def test_one_that_never_answers_is_unhealthy_when_docker_would_say_so(check: Check, earliest: float) -> None:
    at = life(check, 1000.0)
    assert at is not None and earliest <= at <= earliest + check.retries * check.start_interval


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.0, 50.0)), max_size=40),
    st.integers(1, 4),
    st.sampled_from([0.0, 7.0, 100.0]),
)
def test_health_never_goes_bad_before_start_period_and_retries(
    looks: list[tuple[bool, float]], retries: int, period: float
) -> None:
    check = Check(probe=TCP, interval=10.0, retries=retries, start_period=period)
    state, at, ever, failed = HealthState(), STARTED, False, 0
    for well, gap in looks:
        at += gap
        state = folded(check, state, result(0 if well else 1, at), STARTED)
        ever, failed = ever or well, 0 if well else failed + 1
        assert state.status != "starting" or not ever
        if state.status == "unhealthy":
            assert failed >= retries
            assert ever or at >= STARTED + max(period, 10.0) + 10.0 * (retries - 1)


def want(*, service: str | None = "web", **spec: object) -> Instance:
    made = ContainerSpec(image="x", **spec)  # type: ignore[arg-type]
    owner = None if service is None else ServiceId(service)
    return Instance(id=InstanceId("1" * 64), name="box", spec=made, service=owner)


WEB = ImageConfig(exposed_ports=("80/tcp", "443/tcp", "53/udp"))
PORTS = (Publish(target=8080), Publish(target=8081), Publish(target=53, protocol="udp"))


@pytest.mark.parametrize(
    ("instance", "image", "watch"),
    [
        (want(), ImageConfig(), Watch()),
        (want(), WEB, Watch(ports=(80, 443), enough=1)),
        (want(expose=("9000",)), WEB, Watch(ports=(9000, 80, 443), enough=1)),
        (want(ports=PORTS), WEB, Watch(ports=(8080, 8081), enough=2)),
        (want(service=None, ports=PORTS), WEB, Watch()),
        (want(health=HealthCheck(disabled=True), ports=PORTS), WEB, Watch()),
        (want(health=HealthCheck(probe=TCP), ports=PORTS), WEB, Watch(check=Check(probe=TCP))),
        (
            want(service=None),
            ImageConfig(health=HealthCheck(probe=ShellProbe(command="x"))),
            Watch(check=Check(probe=ShellProbe(command="x"))),
        ),
    ],
)
def test_what_a_start_is_watched_by(instance: Instance, image: ImageConfig, watch: Watch) -> None:
    assert watch_of(instance, image) == watch


def test_many_exposed_ports_are_not_all_tried() -> None:
    assert len(watch_of(want(), ImageConfig(exposed_ports=("1-9999/tcp",))).ports) == 8
