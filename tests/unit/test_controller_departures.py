"""When an instance that is to go is avoided by all other hosts, by what they were told and what they said."""

from __future__ import annotations

from controller.departures import Departures
from controller.snapshot import Cluster
from controller.told import Told
from model.directory import Directory, Member
from model.ids import HostId, InstanceId, NetworkId, ServiceId
from model.records import Desired, Instance, ResolvedAttachment
from model.spec import ContainerSpec

NET = NetworkId("net")
A, B = InstanceId("a"), InstanceId("b")
ONE, TWO, THREE = HostId("h1"), HostId("h2"), HostId("h3")


def directory(**ready: bool) -> Directory:
    members = {
        InstanceId(i): Member(name=i, host=ONE, ipv4="10.0.0.1", ready=ready[i]) for i in sorted(ready)
    }
    return Directory(networks={NET: members} if members else {})


def sent(told: Told, now: Directory) -> int:
    news = told.news(now)
    assert news is not None
    return news.serial


def test_host_avoids_nothing_before_it_has_said_what_it_follows() -> None:
    told = Told()
    assert not told.avoids(A, (NET,)), "it may go by what the agent before it knew"
    first = sent(told, directory())
    assert not told.avoids(A, (NET,))
    told.followed(first)
    assert told.avoids(A, (NET,))


def test_host_avoids_what_it_follows_as_not_ready_or_gone() -> None:
    told = Told()
    told.followed(sent(told, directory(a=True, b=True)))
    assert not told.avoids(A, (NET,))
    later = sent(told, directory(a=False, b=True))
    assert not told.avoids(A, (NET,)), "it may not have arrived"
    told.followed(later)
    assert told.avoids(A, (NET,)) and not told.avoids(B, (NET,))
    told.followed(sent(told, directory(b=True)))
    assert told.avoids(A, (NET,))


def test_host_to_which_readiness_is_still_on_its_way_does_not_avoid() -> None:
    told = Told()
    told.followed(sent(told, directory(a=False)))
    up, down = sent(told, directory(a=True)), sent(told, directory(a=False))
    assert not told.avoids(A, (NET,)), "it will hear of it, for a moment"
    told.followed(up)
    assert not told.avoids(A, (NET,))
    told.followed(down)
    assert told.avoids(A, (NET,))
    told.followed(up)
    assert told.avoids(A, (NET,)), "an old word changes nothing"


def test_host_is_sent_the_whole_first_and_differences_alone_then() -> None:
    told = Told()
    first = told.news(Directory())
    assert first is not None and first.whole and first.serial == 1
    assert told.news(Directory()) is None
    second = told.news(directory(a=True))
    assert second is not None and not second.whole and second.serial == 2


def test_nothing_is_kept_for_a_host_that_never_says_what_it_follows() -> None:
    told = Told(answering=False)
    for ready in (True, False, True):
        assert sent(told, directory(a=ready))
    assert not told._on_their_way and not told.avoids(A, (NET,))


class Fleet:
    """Instances of one network on three hosts, and who avoids them."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.avoiding: set[HostId] = set()
        self.told: list[tuple[HostId, InstanceId]] = []
        self.departures = Departures(
            lambda host, _ident, _networks: host in self.avoiding,
            lambda host, ident: self.told.append((host, ident)),
        )
        for ident, host in ((A, ONE), (B, TWO), (InstanceId("c"), THREE)):
            self.put(ident, host)

    def put(
        self,
        ident: InstanceId,
        host: HostId,
        desired: Desired = Desired.RUNNING,
        *,
        service: str | None = "web",
        force: bool = False,
    ) -> None:
        instance = Instance(
            id=ident,
            name=ident,
            spec=ContainerSpec(image="x"),
            service=ServiceId(service) if service else None,
            host=host,
            desired=desired,
            force=force,
            attachments=(ResolvedAttachment(network=NET),),
        )
        self.cluster = self.cluster.apply((instance,), (), 1)[0]
        self.departures.look(self.cluster, [ident])

    def says(self, host: HostId) -> None:
        self.avoiding.add(host)
        self.departures.heard(host)


def test_instance_departs_once_every_other_carrier_avoids_it() -> None:
    fleet = Fleet()
    fleet.put(A, ONE, Desired.REMOVED)
    fleet.says(TWO)
    assert fleet.told == []
    fleet.says(THREE)
    assert fleet.told == [(ONE, A)]
    fleet.departures.look(fleet.cluster, [A])
    fleet.says(TWO)
    assert fleet.told == [(ONE, A)], "once"
    fleet.departures.joined(ONE)
    assert fleet.told == [(ONE, A)] * 2, "a new session is told again"


def test_instance_that_nobody_leads_to_departs_at_once() -> None:
    fleet = Fleet()
    fleet.avoiding = {TWO, THREE}
    fleet.put(A, ONE, Desired.REMOVED)
    assert fleet.told == [(ONE, A)]


def test_only_instances_of_services_that_may_drain_depart() -> None:
    fleet = Fleet()
    fleet.avoiding = {TWO, THREE}
    fleet.put(A, ONE, Desired.STOPPED)
    fleet.put(A, ONE, Desired.REMOVED, force=True)
    fleet.put(A, ONE, Desired.REMOVED, service=None)
    assert fleet.told == []


def test_instance_whose_record_is_gone_is_not_waited_for() -> None:
    fleet = Fleet()
    fleet.put(A, ONE, Desired.REMOVED)
    fleet.cluster = fleet.cluster.apply((), (fleet.cluster.instances[A],), 2)[0]
    fleet.departures.look(fleet.cluster, [A])
    fleet.says(TWO)
    fleet.says(THREE)
    fleet.departures.joined(ONE)
    assert fleet.told == []
