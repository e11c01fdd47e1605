"""The scheduler: placements never break a rule, refusals account for every host."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.schedule.constraints import parse_constraint
from controller.schedule.fleet import Candidate, Demand, demand_of, fleet_of
from controller.schedule.place import place
from controller.snapshot import Cluster
from model.errors import InvalidInput
from model.ids import HostId, InstanceId, ServiceId
from model.records import Host, Instance
from model.spec import (
    Availability,
    ContainerSpec,
    HostSpec,
    Mount,
    Placement,
    Publish,
    Reservations,
)
from model.status import HostFacts, HostReport, HostState, Platform, VolumeReport

SERVICE = ServiceId("s")


def host(
    number: int,
    *,
    cpus: float = 4,
    memory: int = 8 << 30,
    state: HostState = HostState.READY,
    availability: Availability = Availability.ACTIVE,
    labels: dict[str, str] | None = None,
    arch: str = "amd64",
) -> Host:
    facts = HostFacts(
        hostname=f"h{number}",
        address=f"192.0.2.{number}",
        nano_cpus=round(cpus * 10**9),
        memory=memory,
        platform=Platform(arch=arch),
    )
    spec = HostSpec(name=f"h{number}", labels=labels or {}, availability=availability)
    return Host(id=HostId(f"{number:064x}"), spec=spec, facts=facts, state=state)


def cluster_of(*records: Host | Instance) -> Cluster:
    return Cluster().apply(records, (), 1)[0]


def memory(amount: int, **more: object) -> Demand:
    placement = Placement(reservations=Reservations(memory=amount), **more)
    return Demand(placement=placement, service=SERVICE)


def names(hosts: tuple[HostId, ...]) -> list[str]:
    return [f"h{int(h, 16)}" for h in hosts]


def test_spread_gives_each_host_one_before_any_gets_two() -> None:
    fleet = fleet_of(cluster_of(host(1), host(2), host(3)))
    placed = place(memory(1 << 20), 5, fleet)
    assert sorted(names(placed.hosts)[:3]) == ["h1", "h2", "h3"]
    assert sorted(names(placed.hosts)[3:]) == ["h1", "h2"]


def test_binpack_fills_one_host_first() -> None:
    fleet = fleet_of(cluster_of(host(1), host(2)))
    placed = place(memory(2 << 30, strategy="binpack"), 6, fleet)
    assert names(placed.hosts) == ["h1"] * 4 + ["h2"] * 2


def test_refusal_counts_hosts_by_reason_and_names_each() -> None:
    cluster = cluster_of(
        host(1, availability=Availability.DRAIN), host(2, memory=300 << 20), host(3, memory=200 << 20)
    )
    placed = place(memory(512 << 20), 1, fleet_of(cluster))
    assert placed.explanation is not None
    text = placed.explanation.text
    assert text == "3 hosts: 1 drained, 2 lack memory (need 512MiB, most free 300MiB)"
    assert placed.explanation.by_host == {
        host(1).id: "drained",
        host(2).id: "lack memory (need 512MiB, free 300MiB)",
        host(3).id: "lack memory (need 512MiB, free 200MiB)",
    }


def test_fleet_without_hosts_says_so() -> None:
    placed = place(memory(1), 1, fleet_of(Cluster()))
    assert placed.explanation is not None and placed.explanation.text == "the fleet has no hosts"


@pytest.mark.parametrize(
    ("made", "demand", "words"),
    [
        (host(1, state=HostState.UNKNOWN), Demand(), "silent (state unknown)"),
        (host(1, state=HostState.LOST), Demand(), "lost"),
        (host(1, availability=Availability.PAUSE), Demand(), "paused"),
        (host(1, arch="arm64"), Demand(platform="linux/amd64"), "of another platform than linux/amd64"),
        (
            host(1, labels={"zone": "b"}),
            Demand(placement=Placement(constraints=("node.labels.zone==a",))),
            "not matching node.labels.zone==a",
        ),
        (
            host(1, cpus=1),
            Demand(placement=Placement(reservations=Reservations(nano_cpus=2 * 10**9))),
            "lacks cpus (need 2, most free 1)",
        ),
    ],
)
def test_host_that_does_not_fit_is_refused_in_words(made: Host, demand: Demand, words: str) -> None:
    placed = place(demand, 1, fleet_of(cluster_of(made)))
    assert placed.hosts == ()
    assert placed.explanation is not None and placed.explanation.text == f"1 host: 1 {words}"


@pytest.mark.parametrize(
    ("constraint", "found"),
    [
        ("node.labels.zone==a", ["h1"]),
        ("node.labels.zone!=a", ["h2"]),
        ("node.hostname == h2", ["h2"]),
        ("node.platform.os==linux", ["h1", "h2"]),
        (f"node.id=={host(1).id}", ["h1"]),
    ],
)
def test_constraint_selects_hosts(constraint: str, found: list[str]) -> None:
    cluster = cluster_of(host(1, labels={"zone": "a"}), host(2, labels={"zone": "b"}))
    demand = Demand(placement=Placement(constraints=(constraint,), max_per_host=1), service=SERVICE)
    assert sorted(names(place(demand, 2, fleet_of(cluster)).hosts)) == found


@pytest.mark.parametrize("text", ["", "node.labels.==a", "zone=a", "node.mood==good", "node.id"])
def test_constraint_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_constraint(text)


def test_host_ports_are_given_once_and_addresses_share_only_if_they_differ() -> None:
    def wants(ip: str) -> Demand:
        port = Publish(target=80, published=80, host_ip=ip)
        return demand_of(ContainerSpec(image="x", ports=(port,)), Placement())

    fleet = fleet_of(cluster_of(host(1)))
    assert len(place(wants("127.0.0.1"), 2, fleet).hosts) == 1
    assert len(place(wants("127.0.0.2"), 1, fleet).hosts) == 1
    assert not place(wants(""), 1, fleet).hosts


@pytest.mark.parametrize(
    ("taken", "wanted", "free"),
    [
        ("0.0.0.0", "10.0.0.5", False),
        ("10.0.0.5", "0.0.0.0", False),
        ("::", "fd00::5", False),
        ("fd00::5", "fd00:0::5", False),
        ("0.0.0.0", "", False),
        ("0.0.0.0", "fd00::5", True),
        ("::", "0.0.0.0", True),
        ("10.0.0.5", "10.0.0.6", True),
    ],
)
def test_host_port_on_all_addresses_of_a_family_is_taken_on_each_of_them(
    taken: str, wanted: str, free: bool
) -> None:
    def wants(ip: str) -> Demand:
        return demand_of(
            ContainerSpec(image="x", ports=(Publish(target=80, published=80, host_ip=ip),)), Placement()
        )

    fleet = fleet_of(cluster_of(host(1)))
    assert place(wants(taken), 1, fleet).hosts
    assert bool(place(wants(wanted), 1, fleet).hosts) is free


def test_port_of_a_foreign_process_is_taken() -> None:
    cluster = cluster_of(host(1), host(2))
    report = HostReport(host=host(1).id, used_ports=(("tcp", 80),))
    port = Publish(target=80, published=80)
    demand = demand_of(ContainerSpec(image="x", ports=(port,)), Placement())
    assert names(place(demand, 1, fleet_of(cluster, {host(1).id: report})).hosts) == ["h2"]


def test_plain_container_goes_where_its_volume_is_and_a_new_volume_goes_anywhere() -> None:
    cluster = cluster_of(host(1), host(2), host(3, availability=Availability.DRAIN))
    reports = {
        host(2).id: HostReport(host=host(2).id, volumes=(VolumeReport(name="data"),)),
        host(3).id: HostReport(host=host(3).id, volumes=(VolumeReport(name="old"),)),
    }

    def wants(volume: str) -> Demand:
        mount = Mount(type="volume", source=volume, target="/d")
        return demand_of(ContainerSpec(image="x", mounts=(mount,)), Placement())

    assert names(place(wants("data"), 1, fleet_of(cluster, reports)).hosts) == ["h2"]
    assert names(place(wants("new"), 1, fleet_of(cluster, reports)).hosts) == ["h1"]
    stuck = place(wants("old"), 1, fleet_of(cluster, reports))
    assert stuck.explanation is not None
    assert stuck.explanation.text == "3 hosts: 1 drained, 2 without volume old"


def test_instances_on_a_host_lower_what_is_free_until_they_are_stopped() -> None:
    placed = Instance(
        id=InstanceId("i"),
        name="i",
        spec=ContainerSpec(image="x"),
        host=host(1).id,
        placement=Placement(reservations=Reservations(memory=6 << 30)),
    )
    assert not place(memory(4 << 30), 1, fleet_of(cluster_of(host(1), placed))).hosts
    stopped = msgspec.structs.replace(placed, desired="stopped")
    from model.records import Desired

    stopped = msgspec.structs.replace(placed, desired=Desired.STOPPED)
    assert place(memory(4 << 30), 1, fleet_of(cluster_of(host(1), stopped))).hosts


HOSTS = st.lists(
    st.builds(
        lambda cpus, memory, state, availability: (cpus, memory, state, availability),
        st.integers(0, 8),
        st.integers(0, 16),
        st.sampled_from(list(HostState)),
        st.sampled_from(list(Availability)),
    ),
    max_size=8,
)
DEMANDS = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 5), st.integers(0, 3), st.sampled_from(["spread", "binpack"])
    ),
    min_size=1,
    max_size=4,
)


@given(HOSTS, DEMANDS, st.integers(0, 12))
@settings(max_examples=150, deadline=None)
def test_placements_never_exceed_reservations_limits_or_count(
    hosts: list[tuple[int, int, HostState, Availability]],
    demands: list[tuple[int, int, int, str]],
    count: int,
) -> None:
    made = [
        host(n + 1, cpus=c, memory=m << 20, state=s, availability=a) for n, (c, m, s, a) in enumerate(hosts)
    ]
    fleet = fleet_of(cluster_of(*made))
    for index, (cpus, megabytes, limit, strategy) in enumerate(demands):
        placement = Placement(
            max_per_host=limit,
            strategy=strategy,  # type: ignore[arg-type]
            reservations=Reservations(nano_cpus=cpus * 10**9, memory=megabytes << 20),
        )
        demand = Demand(placement=placement, service=ServiceId(str(index)))
        placed = place(demand, count, fleet)
        assert len(placed.hosts) <= count
        for chosen in placed.hosts:
            record = fleet[chosen].host
            assert record.state is HostState.READY
            assert record.spec.availability is Availability.ACTIVE
            assert not limit or placed.hosts.count(chosen) <= limit
        if len(placed.hosts) < count:
            assert placed.explanation is not None
            assert set(placed.explanation.by_host) == set(fleet), "an explanation names every host"
            if fleet:
                parts = placed.explanation.text.split(": ", 1)
                assert parts[0].startswith(f"{len(fleet)} host")
        else:
            assert placed.explanation is None
    for candidate in fleet.values():
        assert candidate.nano_cpus >= 0 and candidate.memory >= 0


@given(HOSTS, st.integers(0, 12))
@settings(max_examples=50, deadline=None)
def test_equal_input_gives_equal_placements(
    hosts: list[tuple[int, int, HostState, Availability]], count: int
) -> None:
    made = [host(n + 1, cpus=c, memory=m << 20) for n, (c, m, _, _) in enumerate(hosts)]
    one = place(memory(1 << 20), count, fleet_of(cluster_of(*made)))
    two = place(memory(1 << 20), count, fleet_of(cluster_of(*reversed(made))))
    assert one == two


def test_candidate_load_is_the_fuller_of_cpu_and_memory() -> None:
    [candidate] = fleet_of(cluster_of(host(1))).values()
    assert isinstance(candidate, Candidate) and candidate.load == 0
    candidate.take(memory(4 << 30))
    assert candidate.load == 0.5
