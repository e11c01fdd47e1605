"""What a host recalls after a restore: the newer truth is taken, a lie about others is not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from controller import recovery
from controller.recall import plan_recall
from controller.snapshot import Cluster
from model.errors import WrongState
from model.ids import HostId, InstanceId, NetworkId, ServiceId
from model.records import (
    Block,
    Desired,
    FleetSettings,
    Host,
    Instance,
    JoinToken,
    Network,
    Record,
    RegistryToken,
    ResolvedAttachment,
    Service,
)
from model.reportrules import recall_problems
from model.spec import ContainerSpec, HostSpec, NetworkSpec, ServiceSpec, Subnet
from model.status import HostFacts, HostState, InstanceStatus, Phase
from model.view import NetworkView, View
from model.wire import Recall

A, B = HostId("a" * 64), HostId("b" * 64)
N = NetworkId("1" * 64)
WEB = ServiceId("2" * 64)
BACKUP = 50
SPEC = NetworkSpec(name="net", subnets=(Subnet(cidr="10.128.0.0/16"),))


def host(ident: HostId, state: HostState = HostState.READY) -> Host:
    return Host(
        id=ident,
        spec=HostSpec(name=ident[:1]),
        facts=HostFacts(hostname="h", address="192.0.2.1"),
        state=state,
        revision=2,
    )


def container(number: int, host: HostId | None = A, revision: int = 10) -> Instance:
    return Instance(
        id=InstanceId(f"{number:064x}"),
        name=f"c{number}",
        spec=ContainerSpec(image="box:1"),
        host=host,
        attachments=(ResolvedAttachment(network=N),),
        revision=revision,
    )


def fleet(*records: Record, awaited: tuple[Host, ...] = (host(A), host(B))) -> Cluster:
    """Restored from a backup with these."""
    settings = FleetSettings(fleet_id="f", revision=1)
    network = Network(id=N, spec=SPEC, vni=4096, vip_ranges=("10.200.0.0/20",), revision=3)
    share = Block(network=N, cidr="10.128.0.0/24", host=B, revision=4)
    backup, _ = Cluster().apply((settings, network, share, *awaited, *records), (), BACKUP)
    return recovery.restored(backup, taken_at=1.0, now=2.0)


def view(*instances: Instance, blocks: tuple[str, ...] = (), revision: int = 80) -> View:
    network = NetworkView(id=N, spec=SPEC, vni=4096, blocks=blocks)
    return View(
        revision=revision, fleet_id="f", instances={i.id: i for i in instances}, networks={N: network}
    )


def recalled(
    cluster: Cluster,
    told: View,
    *there: Instance,
    of: HostId = A,
    also: dict[HostId, Recall] | None = None,
) -> tuple[Cluster, tuple[str, ...]]:
    """The state after that host's word, and what was left out of it."""
    statuses = tuple(InstanceStatus(instance=i.id, phase=Phase.RUNNING) for i in there)
    recall = Recall(view=told, statuses=statuses)
    plan, words = plan_recall(cluster, of, {**(also or {}), of: recall}, 9.0)
    puts = tuple(item.record for item in plan.items if not item.delete)
    gone = tuple(item.record for item in plan.items if item.delete)
    for record in (*puts, *gone):
        known = cluster.get(next(c.key for c in Cluster().apply((record,), (), 1)[1]))
        assert record.revision == (known.revision if known is not None else 0), "a commit would conflict"
    return cluster.apply(puts, gone, cluster.revision + 1)[0], words


def test_restored_state_waits_for_all_hosts_but_the_lost_and_has_no_tokens() -> None:
    token = JoinToken(id="t", secret_hash="x", revision=5)
    login = RegistryToken(id="r", name="ci", secret_hash="y", revision=5)
    found = fleet(token, login, awaited=(host(A), host(B, HostState.LOST)))
    assert found.settings.recovery is not None
    assert (found.settings.recovery.awaited, found.settings.recovery.unheard) == ((A,), (B,))
    assert not found.tokens and not found.registry_tokens
    assert found.revision > BACKUP + 1_000_000
    assert recovery.held(found) and recovery.asks(found, B)


def test_backup_that_is_restored_again_begins_beyond_what_the_first_restore_wrote() -> None:
    backup, _ = Cluster().apply((FleetSettings(fleet_id="f", revision=1), host(A)), (), BACKUP)
    first, again = (recovery.restored(backup, taken_at=1.0, now=1.8e9 + hours * 3600) for hours in (0, 1))
    assert again.revision > first.revision + 1_000_000_000
    assert again.revision < 1 << 53, "JSON of browsers has no greater numbers"


def test_restored_state_without_hosts_waits_for_nobody() -> None:
    found = fleet(awaited=())
    assert found.settings.recovery is None
    assert recovery.settled(found) is found


def test_epoch_after_a_restore_is_beyond_every_start_of_the_lost_controller() -> None:
    assert recovery.epoch_of(7, 1_700_000_000.5) == 1_700_000_000
    assert recovery.epoch_of(1_700_000_000, 1_700_000_000.0) == 1_700_000_001


def test_container_of_after_the_backup_is_taken_with_its_share() -> None:
    late = container(1)
    found, words = recalled(fleet(), view(late, blocks=("10.128.1.0/24",)), late)
    assert found.instances[late.id] == replace(late, reason=found.instances[late.id].reason, revision=0)
    assert found.blocks[f"{N}/10.128.1.0/24"].host == A
    assert not words
    assert found.settings.recovery is not None and found.settings.recovery.awaited == (B,)
    done, _ = recalled(found, view(), of=B)
    assert done.settings.recovery is None


def test_container_that_was_stopped_after_the_backup_stays_stopped() -> None:
    old = container(1)
    newer = replace(old, desired=Desired.STOPPED, attempt=4, revision=70)
    found, _ = recalled(fleet(old), view(newer), old)
    assert (found.instances[old.id].desired, found.instances[old.id].attempt) == (Desired.STOPPED, 4)


def test_container_that_the_hosts_newer_view_does_not_have_was_removed() -> None:
    old = container(1)
    assert old.id not in recalled(fleet(old), view())[0].instances


def test_container_of_a_host_that_was_emptied_is_made_again() -> None:
    old = container(1)
    found, _ = recalled(fleet(old), View())
    assert found.instances[old.id].desired is Desired.RUNNING


def test_container_whose_removal_is_under_way_is_removed_to_the_end() -> None:
    old = container(1)
    going = replace(old, desired=Desired.REMOVED, revision=70)
    found, _ = recalled(fleet(old), view(going), old)
    assert found.instances[old.id].desired is Desired.REMOVED
    found, _ = recalled(fleet(old), view(going))
    assert old.id not in found.instances


def test_replica_of_a_known_service_stays_its_replica_and_of_an_unknown_one_becomes_a_container() -> None:
    spec = ServiceSpec(name="web", container=ContainerSpec(image="box:1"))
    service = Service(id=WEB, spec=spec, revision=5)
    mine = replace(container(1), service=WEB, service_name="web", slot=1)
    other = replace(container(2), service=ServiceId("9" * 64), service_name="late", slot=1)
    found, _ = recalled(fleet(service), view(mine, other), mine, other)
    assert found.instances[mine.id].service == WEB
    kept = found.instances[other.id]
    assert (kept.service, kept.slot) == (None, 0)
    assert "service late is not in the backup" in kept.reason


def test_network_of_after_the_backup_is_taken_unless_it_meets_another() -> None:
    def told(name: str, cidr: str, vni: int) -> View:
        spec = NetworkSpec(name=name, subnets=(Subnet(cidr=cidr),))
        ident = NetworkId("7" * 64)
        network = NetworkView(id=ident, spec=spec, vni=vni, blocks=(cidr,))
        return View(revision=80, fleet_id="f", networks={ident: network})

    found, words = recalled(fleet(), told("late", "10.9.0.0/16", 4100))
    assert found.networks[NetworkId("7" * 64)].vni == 4100 and not words
    for name, cidr, vni, why in (
        ("net", "10.9.0.0/16", 4100, "net is another one"),
        ("late", "10.9.0.0/16", 4096, "net has its number"),
        ("late", "10.128.7.0/24", 4100, "overlaps 10.128.0.0/16 of net"),
        ("late", "10.200.0.0/24", 4100, "overlaps 10.200.0.0/20 of net"),
    ):
        found, words = recalled(fleet(), told(name, cidr, vni))
        assert len(found.networks) == 1
        assert why in words[0]


def test_network_of_the_backup_gives_way_once_each_host_that_had_a_share_does_not_carry_it() -> None:
    spec = NetworkSpec(name="late", subnets=(Subnet(cidr="10.9.0.0/16"),))
    ident = NetworkId("7" * 64)
    late = NetworkView(id=ident, spec=spec, vni=4096, blocks=("10.9.0.0/24",))
    told = View(revision=80, fleet_id="f", networks={ident: late})
    found, words = recalled(fleet(), told)
    assert ident not in found.networks and "net has its number" in words[0], "b may carry it"
    carries = {B: Recall(view=view(blocks=("10.128.0.0/24",)))}
    assert ident not in recalled(fleet(), told, also=carries)[0].networks
    gone = {B: Recall(view=View(revision=80, fleet_id="f"))}
    assert ident not in recalled(fleet(container(1)), told, container(1), also=gone)[0].networks, "it is used"
    found, words = recalled(fleet(), told, also=gone)
    assert set(found.networks) == {ident} and not words
    assert set(found.blocks) == {f"{ident}/10.9.0.0/24"}


def test_container_keeps_its_network_though_only_a_later_word_makes_room_for_that() -> None:
    ident = NetworkId("7" * 64)
    late = NetworkView(id=ident, spec=replace(SPEC, name="late"), vni=4097, blocks=("10.128.9.0/24",))
    on_late = replace(container(9), attachments=(ResolvedAttachment(network=ident),))
    told = View(revision=80, fleet_id="f", instances={on_late.id: on_late}, networks={ident: late})
    backup = fleet(
        container(2, host=B)
    )  # it keeps the older network in use until its host says that it is gone
    gone = Recall(view=View(revision=80, fleet_id="f"))
    found, words = recalled(backup, told, on_late, also={B: gone})
    assert found.instances[on_late.id].attachments == on_late.attachments and not words
    first, words = recalled(backup, told, on_late)
    assert not first.instances[on_late.id].attachments and words
    statuses = (InstanceStatus(instance=on_late.id, phase=Phase.RUNNING),)
    also = {A: Recall(view=told, statuses=statuses)}
    found, _ = recalled(first, gone.view, of=B, also=also)
    assert found.instances[on_late.id].attachments == on_late.attachments
    assert set(found.networks) == {ident}


def test_share_of_the_backup_goes_to_who_has_it_once_its_host_says_that_it_has_not() -> None:
    late = container(1)
    told = view(late, blocks=("10.128.0.0/24",))
    key = f"{N}/10.128.0.0/24"
    found, words = recalled(fleet(), told, late)
    assert found.blocks[key].host == B and "b's in the backup" in words[0]
    found, words = recalled(fleet(), told, late, also={B: Recall(view=view(blocks=("10.128.4.0/24",)))})
    assert found.blocks[key].host == A and not words
    assert found.blocks[f"{N}/10.128.4.0/24"].host == B
    emptied = {B: Recall(view=View())}
    assert recalled(fleet(), told, late, also=emptied)[0].blocks[key].host == B


def test_what_was_told_while_all_waited_is_not_taken_again_afterwards() -> None:
    """It is old by then: people have gone on."""
    (item,) = recovery.plan_settle(fleet(), 9.0).items
    settled = fleet().apply((item.record,), (), fleet().revision + 1)[0]
    late, gone = container(1), container(2, host=B)
    found, _ = recalled(settled, view(late), late, also={B: Recall(view=view(gone))})
    assert late.id in found.instances and gone.id not in found.instances


def test_host_that_was_heard_is_not_believed_again_while_others_are_yet_to_come() -> None:
    """Nobody asks it then: what it says of its own accord is no memory of before the restore."""
    record = recovery.plan_settle(fleet(), 9.0).items[0].record
    settled = fleet().apply((record,), (), fleet().revision + 1)[0]
    heard, _ = recalled(settled, view())
    assert heard.settings.recovery is not None and heard.settings.recovery.unheard == (B,)
    late = container(1, revision=1 << 40)
    found, words = recalled(heard, view(late, revision=1 << 40), late)
    assert late.id not in found.instances and not words


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_recall_that_nobody_could_be_shown_is_refused(number: float) -> None:
    good = Recall(view=view(container(1)), statuses=(InstanceStatus(instance=container(1).id),))
    assert not [*recall_problems(good)]
    at = replace(container(1), created_at=number)
    assert [*recall_problems(replace(good, view=view(at)))]
    status = InstanceStatus(instance=at.id, created_at=number)
    assert [*recall_problems(replace(good, statuses=(status,)))]


def test_name_that_somebody_else_has_is_kept_by_him() -> None:
    late, old = container(1), replace(container(2, host=B), name="c1")
    found, _ = recalled(fleet(old), view(late), late)
    assert found.names["c1"] == old.id
    assert found.instances[late.id].name == f"c1-{late.id[:6]}"


def test_names_of_two_that_somebody_else_has_both_are_told_apart() -> None:
    first, second = replace(container(0x10), name="c1"), replace(container(0x20), name="c1")
    found, _ = recalled(fleet(replace(container(2, host=B), name="c1")), view(first, second), first, second)
    assert sorted(found.names) == ["c1", f"c1-{first.id[:6]}", f"c1-{second.id[:7]}"]


def test_network_with_ranges_that_are_none_is_left_out() -> None:
    for ident, ranges, why in (
        (NetworkId("7" * 64), ("10.9.0.5/24",), "no range"),
        (NetworkId(""), (), "no id"),
    ):
        network = NetworkView(
            id=ident,
            spec=NetworkSpec(name="late", subnets=(Subnet(cidr="10.9.0.0/16"),)),
            vni=4100,
            blocks=(),
            vip_ranges=ranges,
        )
        told = View(revision=80, fleet_id="f", networks={ident: network})
        found, words = recalled(fleet(), told)
        assert len(found.networks) == 1
        assert why in words[0]


def test_host_that_lies_gets_nothing_of_others() -> None:
    theirs, bad = container(1, host=B), replace(container(2), name="../x")
    stolen = replace(theirs, host=A, revision=99)
    claims = view(stolen, bad, blocks=("10.128.0.0/24", "10.128.0.0/20", "10.77.0.0/24", "x", "10.128.0.1/8"))
    before = fleet(theirs)
    found, words = recalled(before, claims, stolen, bad)
    assert found.instances == before.instances
    assert found.blocks == before.blocks
    assert len(words) == 7
    foreign = replace(view(container(3)), fleet_id="another")
    found, words = recalled(before, foreign)
    assert not found.on_host(A) and words == ("what it knows is of another fleet",)


def test_settling_goes_on_without_hosts_and_asks_them_when_they_come() -> None:
    plan = recovery.plan_settle(fleet(), 9.0)
    (item,) = plan.items
    assert isinstance(item.record, FleetSettings)
    before = fleet()
    after, _ = before.apply((item.record,), (), before.revision + 1)
    assert not recovery.held(after) and recovery.asks(after, A) and recovery.asks(after, B)
    assert recovery.over(before.settings, after.settings)
    late = container(1)
    found, _ = recalled(after, view(late), late)
    assert late.id in found.instances
    try:
        recovery.plan_settle(after, 9.0)
    except WrongState as refusal:
        assert "no host is waited for" in refusal.message
    else:
        raise AssertionError("settled twice")
