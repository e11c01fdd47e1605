"""When an instance that is about to start is known to the hosts that judge it."""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from controller.arrivals import Arrivals
from controller.policies import selecting_on
from controller.snapshot import Cluster
from controller.told import Told
from model.directory import Directory, Member
from model.ids import HostId, InstanceId, NetworkId, PolicyId
from model.policy import PolicyPeer, PolicyRule, PolicySpec, Selector
from model.records import Host, Instance, Network, Policy, Record, ResolvedAttachment
from model.spec import ContainerSpec, HostSpec, NetworkSpec, Subnet
from model.status import Endpoint, HostFacts, InstanceStatus, Phase

NET, LOCAL = NetworkId("net"), NetworkId("local")
NEW, WEB, OTHER = InstanceId("new"), InstanceId("web"), InstanceId("other")
ONE, TWO, THREE = HostId("h1"), HostId("h2"), HostId("h3")
AT = {NET: ("10.1.0.5", "")}


def network(ident: NetworkId, driver: str) -> Network:
    spec = NetworkSpec(name=ident, driver=driver, subnets=(Subnet(cidr="10.1.0.0/16"),))
    return Network(id=ident, spec=spec)


def instance(ident: InstanceId, host: HostId, *networks: NetworkId) -> Instance:
    attachments = tuple(ResolvedAttachment(network=n) for n in networks)
    return Instance(id=ident, name=ident, spec=ContainerSpec(image="x"), host=host, attachments=attachments)


def policy(name: str) -> Policy:
    rule = PolicyRule(peers=(PolicyPeer(container="new"),))
    return Policy(
        id=PolicyId("p"), spec=PolicySpec(name="p", selects=Selector(container=name), ingress=(rule,))
    )


class Fleet:
    """`new` is about to start on h1; a policy selects `web` on h2; `other` is on h3."""

    def __init__(self, *more: Policy) -> None:
        hosts = (
            Host(id=h, spec=HostSpec(name=h), facts=HostFacts(hostname=h, address=""))
            for h in (ONE, TWO, THREE)
        )
        placed = (instance(NEW, ONE, NET, LOCAL), instance(WEB, TWO, NET), instance(OTHER, THREE, NET))
        records = (*hosts, *placed, network(NET, "overlay"), network(LOCAL, "bridge"), *more)
        self.cluster = Cluster().apply(records, (), 1)[0]
        self.know: set[tuple[HostId, str]] = set()
        self.told: list[tuple[HostId, InstanceId]] = []
        self.asked: list[HostId] = []
        self.arrivals = Arrivals(
            lambda host, _, at: (host, at[NET][0]) in self.know,
            lambda host, ident: self.told.append((host, ident)),
            self.selecting,
        )

    def selecting(self, cluster: Cluster, host: HostId) -> Collection[PolicyId]:
        self.asked.append(host)
        return selecting_on(cluster, host)

    def put(self, *records: Record) -> None:
        self.cluster = self.cluster.apply(records, (), self.cluster.revision + 1)[0]

    def says(self, phase: Phase, address: str = "10.1.0.5") -> None:
        feet = tuple(
            Endpoint(network=n, network_name=n, ifname="eth0", ipv4=address) for n in (NET, LOCAL) if address
        )
        status = InstanceStatus(instance=NEW, phase=phase, endpoints=feet)
        self.arrivals.look(self.cluster, {NEW: status}, (NEW, OTHER))


def test_start_waits_for_the_hosts_that_judge_and_for_no_others() -> None:
    fleet = Fleet(policy("web"))
    fleet.says(Phase.PREPARING, "")
    fleet.says(Phase.CREATED)
    fleet.arrivals.heard(TWO)
    fleet.arrivals.heard(THREE)
    assert fleet.told == [], "h2 does not know it yet"
    fleet.know.add((TWO, "10.1.0.5"))
    fleet.arrivals.heard(TWO)
    fleet.arrivals.heard(TWO)
    assert fleet.told == [(ONE, NEW)]


def test_where_nobody_judges_or_all_know_it_is_told_at_once() -> None:
    fleet = Fleet(policy("somebody"))
    fleet.says(Phase.CREATED)
    assert fleet.told == [(ONE, NEW)]
    known = Fleet(policy("web"))
    known.know.add((TWO, "10.1.0.5"))
    known.says(Phase.CREATED)
    known.says(Phase.STARTING)
    assert known.told == [(ONE, NEW)]
    none = Fleet()
    none.says(Phase.CREATED)
    assert none.told == [], "its host does not wait"


def test_the_next_run_with_another_address_is_waited_for_anew() -> None:
    fleet = Fleet(policy("web"))
    fleet.know.add((TWO, "10.1.0.5"))
    fleet.says(Phase.CREATED)
    fleet.says(Phase.EXITED)
    assert set(fleet.arrivals.known()) == set()
    fleet.says(Phase.CREATED, "10.1.0.6")
    assert fleet.told == [(ONE, NEW)]
    fleet.know.add((TWO, "10.1.0.6"))
    fleet.arrivals.heard(TWO)
    assert fleet.told == [(ONE, NEW)] * 2


def test_host_that_begins_a_session_is_told_again_of_those_that_it_may_start() -> None:
    fleet = Fleet(policy("web"))
    fleet.says(Phase.CREATED)
    fleet.arrivals.joined(ONE)
    assert fleet.told == [], "h2 does not know it yet"
    fleet.know.add((TWO, "10.1.0.5"))
    fleet.arrivals.heard(TWO)
    fleet.arrivals.joined(TWO)
    assert fleet.told == [(ONE, NEW)]
    fleet.arrivals.joined(ONE)
    assert fleet.told == [(ONE, NEW)] * 2
    fleet.says(Phase.RUNNING)
    fleet.arrivals.joined(ONE)
    assert len(fleet.told) == 2


def test_whether_a_host_judges_is_looked_up_again_only_when_that_may_have_changed() -> None:
    fleet = Fleet(policy("web"))
    fleet.says(Phase.CREATED)
    assert sorted(fleet.asked) == [TWO, THREE]
    fleet.put(replace(fleet.cluster.hosts[TWO], state_reason="it fell silent"))
    fleet.says(Phase.CREATED, "10.1.0.6")
    assert len(fleet.asked) == 2
    fleet.put(instance(InstanceId("more"), THREE, NET))
    fleet.says(Phase.CREATED, "10.1.0.7")
    assert fleet.asked[2:] == [THREE]
    fleet.know.add((TWO, "10.1.0.8"))
    fleet.put(policy("more"))
    fleet.says(Phase.CREATED, "10.1.0.8")
    assert sorted(fleet.asked[3:]) == [TWO, THREE] and fleet.told == [], "h3 judges now"


def test_host_knows_an_instance_once_it_follows_these_addresses() -> None:
    told = Told()
    member = Member(name="new", host=ONE, ipv4="10.1.0.5", ready=False)
    news = told.news(Directory(networks={NET: {NEW: member}}))
    assert news is not None and not told.knows(NEW, AT)
    told.followed(news.serial)
    assert told.knows(NEW, AT) and not told.knows(OTHER, AT)
    moved = told.news(Directory(networks={NET: {NEW: replace(member, ipv4="10.1.0.6")}}))
    assert moved is not None
    told.followed(moved.serial)
    assert not told.knows(NEW, AT) and told.knows(NEW, {})
