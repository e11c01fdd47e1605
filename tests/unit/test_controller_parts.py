"""Views, addressing, names, keys, the CA: small pure parts of the controller."""

from __future__ import annotations

import ssl

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from controller.addressing import Leases, resolve_subnets
from controller.commands import networks
from controller.pki import Authority, fingerprint, new_token, secret_hash, secret_of
from controller.placing import World
from controller.plan import Plan
from controller.queries import block_usage
from controller.reconcile.network import plan_network
from controller.snapshot import Change, Cluster
from controller.store.base import stamped
from controller.views import affected, view_of
from model import waiting
from model.errors import Damaged, Exhausted, InvalidInput, Unauthenticated
from model.ids import HostId, InstanceId, NetworkId
from model.inventednames import invent
from model.records import Block, Desired, Host, Instance, Network, ResolvedAttachment
from model.spec import ContainerSpec, HostSpec, NetworkSpec, Subnet
from model.status import Endpoint, HostFacts, HostState, InstanceStatus, Phase
from model.view import apply, diff
from net.host import PREDEFINED_BRIDGE, predefined_bridge
from net.ipam import room

BLUE = NetworkId("blue")


def host(number: int, state: HostState = HostState.READY) -> Host:
    facts = HostFacts(hostname=f"h{number}", address=f"192.0.2.{number}")
    return Host(id=HostId(f"h{number}"), spec=HostSpec(name=f"h{number}"), facts=facts, state=state)


def network(cidr: str = "10.1.0.0/16") -> Network:
    return Network(id=BLUE, spec=NetworkSpec(name="blue", subnets=(Subnet(cidr=cidr),)), vni=4096)


def instance(name: str, on: str) -> Instance:
    return Instance(
        id=InstanceId(name),
        name=name,
        spec=ContainerSpec(image="x"),
        host=HostId(on),
        attachments=(ResolvedAttachment(network=BLUE),),
    )


def cluster_of(*records: object) -> Cluster:
    return Cluster().apply(records, (), 1)[0]  # type: ignore[arg-type]


def applied(cluster: Cluster, plan: Plan) -> Cluster:
    puts = [i.record for i in plan.items if not i.delete]
    deletes = [i.record for i in plan.items if i.delete]
    revision = cluster.revision + 1
    return cluster.apply(stamped(puts, revision), deletes, revision)[0]


def leased(cluster: Cluster, *hosts: str, now: float = 0.0) -> Cluster:
    leases = Leases(cluster, now)
    for name in hosts:
        leases.ensure(cluster.networks[BLUE], HostId(name))
    return applied(cluster, Plan(items=leases.items()))


def test_view_holds_what_its_host_needs_and_nothing_else() -> None:
    other = Network(id=NetworkId("red"), spec=NetworkSpec(name="red", subnets=(Subnet(cidr="10.2.0.0/16"),)))
    cluster = cluster_of(
        host(1), host(2), host(3), network(), other, instance("a", "h1"), instance("b", "h2")
    )
    cluster = leased(cluster, "h1", "h2")
    view = view_of(cluster, HostId("h1"))
    assert set(view.instances) == {"a"} and set(view.networks) == {"blue"} and set(view.peers) == {"h2"}
    blue = view.networks[BLUE]
    assert [peer.host for peer in blue.peers] == ["h2"]
    assert not set(blue.blocks) & set(blue.peers[0].blocks)
    assert view_of(cluster, HostId("h3")).networks == {}


def test_predefined_network_is_in_every_hosts_view_and_costs_no_block() -> None:
    bridge = Network(id=NetworkId(PREDEFINED_BRIDGE), spec=predefined_bridge(), predefined=True)
    cluster = cluster_of(host(1), host(2), bridge)
    for number in (1, 2):
        [view] = view_of(cluster, HostId(f"h{number}")).networks.values()
        assert view.spec.name == PREDEFINED_BRIDGE and view.blocks == ("172.29.0.0/16",)
    change = Change(old=None, new=bridge)
    assert affected(cluster, change) == {HostId("h1"), HostId("h2")}


def test_lost_host_leaves_its_peers_views_but_keeps_its_block() -> None:
    cluster = leased(
        cluster_of(host(1), host(2), network(), instance("a", "h1"), instance("b", "h2")), "h1", "h2"
    )
    before = view_of(cluster, HostId("h1"))
    lost = host(2, HostState.LOST)
    after, changes = cluster.apply((lost,), (), 9)
    assert affected(after, changes[0]) == {"h1", "h2"}
    view = view_of(after, HostId("h1"))
    assert view.peers == {} and view.networks[BLUE].peers == ()
    assert len(after.blocks_of(BLUE)) == 2
    assert apply(diff(before, view), before) == view


def test_host_change_that_no_view_shows_rings_nobody() -> None:
    cluster = leased(cluster_of(host(1), host(2), network()), "h1", "h2")
    paused = msgspec.structs.replace(host(1), state=HostState.UNKNOWN, state_reason="x")
    assert affected(cluster, Change(old=host(1), new=paused)) == set()


def test_second_lease_for_a_host_is_the_first() -> None:
    cluster = leased(cluster_of(host(1), network()), "h1")
    leases = Leases(cluster, 0.0)
    leases.ensure(cluster.networks[BLUE], HostId("h1"))
    assert leases.items() == ()


def test_slash_24_serves_a_hundred_hosts() -> None:
    records = [host(n) for n in range(1, 101)]
    cluster = leased(cluster_of(network("10.1.0.0/24"), *records), *(h.id for h in records))
    assert len(cluster.blocks_of(BLUE)) == 100


def test_full_network_takes_back_unused_blocks_after_quarantine() -> None:
    records = [host(n) for n in range(1, 12)]
    cluster = cluster_of(network("10.1.0.0/29"), *records, instance("a", "h1"))
    leases = Leases(cluster, 0.0)
    given = 0
    with pytest.raises(Exhausted, match="blue"):
        for record in records:
            leases.ensure(cluster.networks[BLUE], record.id)
            given += 1
    cluster = leased(cluster, *(f"h{n}" for n in range(1, given + 1)))
    again = Leases(cluster, 100.0)
    with pytest.raises(Exhausted):
        again.ensure(cluster.networks[BLUE], HostId("h11"))
    cluster = applied(cluster, Plan(items=again.items()))
    waiting = plan_network(cluster, BLUE, 100.0)
    assert waiting.empty and waiting.retry_at == 160.0
    cluster = applied(cluster, plan_network(cluster, BLUE, 160.0))
    assert [block.host for block in cluster.blocks_of(BLUE).values()] == ["h1"]
    leased(cluster, "h11")


def test_host_whose_share_is_full_of_instances_gets_another_block() -> None:
    cluster = cluster_of(host(1), host(2), network("10.1.0.0/27"))
    sizes = []
    for number in range(8):
        cluster = leased(cluster, "h1")
        mine = [b.cidr for b in cluster.blocks_of(BLUE).values() if b.host == "h1"]
        sizes.append(sum(room(cluster.networks[BLUE].spec, cidr, mine) for cidr in mine))
        cluster = cluster.apply(stamped([instance(f"i{number}", "h1")], 9 + number), (), 9 + number)[0]
    assert all(size > held for held, size in enumerate(sizes)), "room for one more each time"
    assert len(mine) < 6, "and no block without need"


def test_host_that_is_short_of_addresses_gets_a_block_and_time_to_find_out() -> None:
    cluster = leased(cluster_of(host(1), host(2), network("10.1.0.0/28")), "h1", "h2")
    short = frozenset({HostId("h1"), HostId("h9")})
    assert plan_network(cluster, BLUE, 100.0).empty
    plan = plan_network(cluster, BLUE, 100.0, short)
    (item,) = plan.items
    assert isinstance(item.record, Block) and item.record.host == "h1" and "no free address" in item.reason
    cluster = applied(cluster, plan)
    again = plan_network(cluster, BLUE, 101.0, short)
    assert again.empty and again.retry_at == 105.0
    for now in (106.0, 112.0, 118.0, 124.0, 130.0):
        cluster = applied(cluster, plan_network(cluster, BLUE, now, short))
    assert plan_network(cluster, BLUE, 140.0, short).empty, "nothing is left"


def test_usage_of_blocks_counts_what_hosts_reported() -> None:
    here = (instance("a", "h1"), instance("b", "h2"))
    cluster = leased(cluster_of(host(1), host(2), network(), *here), "h1", "h2")
    feet = {"a": "10.1.0.3", "b": "10.1.1.200"}
    world = World(
        statuses={
            InstanceId(name): InstanceStatus(
                instance=InstanceId(name),
                endpoints=(Endpoint(network=BLUE, network_name="blue", ifname="eth0", ipv4=address),),
            )
            for name, address in feet.items()
        },
        reports={},
    )
    found = block_usage(cluster, cluster.networks[BLUE], world)
    # Of 256 each the first lacks the network's address, the gateway and the host's own, the second a host's.
    assert [(u.cidr, u.host, u.size, u.used, u.free) for u in found] == [
        ("10.1.0.0/24", "h1", 253, 1, 252),
        ("10.1.1.0/24", "h2", 255, 1, 254),
    ]


def test_blocks_of_a_removed_host_rest_before_they_are_free() -> None:
    cluster = leased(cluster_of(host(1), host(2), network()), "h1", "h2")
    cluster, _ = cluster.apply((), (host(1),), 5)
    cluster = applied(cluster, plan_network(cluster, BLUE, 50.0))
    [resting] = [b for b in cluster.blocks_of(BLUE).values() if b.quarantined_until]
    assert resting.host == "h1" and resting.quarantined_until == 110.0
    assert view_of(cluster, HostId("h2")).networks[BLUE].peers == ()
    assert len(applied(cluster, plan_network(cluster, BLUE, 110.0)).blocks_of(BLUE)) == 1


@pytest.mark.parametrize(
    "cidr",
    [
        "0.0.0.0/0",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/8",
        "10.1.2.0/24",
        "192.0.2.0/24",
    ],
)
def test_reserved_or_overlapping_subnets_are_refused(cidr: str) -> None:
    cluster = cluster_of(network())
    spec = NetworkSpec(name="n", subnets=(Subnet(cidr=cidr),))
    with pytest.raises(InvalidInput):
        resolve_subnets(spec, cluster, vni=1, hosts=[host(7)])


def test_networks_without_wishes_get_subnets_that_do_not_meet() -> None:
    cluster = Cluster()
    for number in range(5):
        plan = networks.create(
            cluster, NetworkSpec(name=f"n{number}", ipv6=True), now=0, ident=NetworkId(f"n{number}")
        )
        cluster = applied(cluster, plan)
    cidrs = [s.cidr for n in cluster.networks.values() for s in n.spec.subnets]
    assert len(set(cidrs)) == 10
    assert sorted(n.vni for n in cluster.networks.values()) == list(range(4096, 4101))


def test_block_key_is_its_network_and_range() -> None:
    assert Block(network=BLUE, cidr="10.1.0.0/24", host=HostId("h1")).key == "blue/10.1.0.0/24"


def test_invented_names_are_words_and_free() -> None:
    first = invent("1" * 64, ())
    assert first.count("_") == 1
    assert invent("1" * 64, {first}) == f"{first}2"


# -- the CA -----------------------------------------------------------------------------------------------


def csr(curve: ec.EllipticCurve | None = None) -> str:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "whoever")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def uri(pem: bytes) -> list[str]:
    names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def test_host_certificate_names_the_host_and_nothing_from_its_request() -> None:
    authority = Authority.new("f" * 32)
    pair = authority.host(csr(), "a" * 64)
    assert uri(pair.certificate) == [f"spiffe://{'f' * 32}/host/{'a' * 64}"]
    leaf = x509.load_pem_x509_certificate(pair.certificate)
    assert "whoever" not in leaf.subject.rfc4514_string()
    ca = x509.load_pem_x509_certificate(authority.pem)
    leaf.verify_directly_issued_by(ca)
    assert len(fingerprint(pair.certificate)) == 64


@pytest.mark.parametrize("request_", ["", "junk", "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n"])
def test_unreadable_request_is_refused(request_: str) -> None:
    with pytest.raises(InvalidInput):
        Authority.new("f").host(request_, "a" * 64)


def test_request_for_another_curve_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no P-256 key"):
        Authority.new("f").host(csr(ec.SECP384R1()), "a" * 64)


def test_request_with_any_byte_changed_is_taken_or_refused_in_words() -> None:
    authority = Authority.new("f")
    whole = x509.load_pem_x509_csr(csr().encode()).public_bytes(serialization.Encoding.DER)
    for place in range(len(whole)):
        spoilt = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        text = ssl.DER_cert_to_PEM_cert(spoilt).replace("CERTIFICATE", "CERTIFICATE REQUEST")
        try:
            assert authority.host(text, "a" * 64).certificate
        except InvalidInput as refusal:
            assert "certificate request" in refusal.message


def test_ca_is_found_again_and_another_fleets_refused(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path)) / "pki"
    first = Authority.open(folder, "fleet-one")
    assert Authority.open(folder, "fleet-one").digest == first.digest
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Damaged, match="another fleet"):
        Authority.open(folder, "fleet-two")
    (folder / "ca.key").write_text("junk")
    with pytest.raises(Damaged):
        Authority.open(folder, "fleet-one")


def test_token_carries_the_cas_digest_and_only_its_hash_is_kept() -> None:
    authority = Authority.new("f")
    token, digest = new_token(authority)
    assert token.startswith(f"flota-1-{authority.digest}-")
    secret = secret_of(token, authority)
    assert secret_hash(secret) == digest and secret not in digest
    with pytest.raises(Unauthenticated, match="another fleet"):
        secret_of(token, Authority.new("g"))


def test_server_certificate_passes_a_clients_checks() -> None:
    authority = Authority.new("f")
    pair = authority.controller(("192.0.2.1", "controller.example"))
    leaf = x509.load_pem_x509_certificate(pair.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["controller.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]
    context = ssl.create_default_context(cadata=authority.pem.decode())
    assert context.cert_store_stats()["x509_ca"] == 1


def test_wait_for_networks_ends_when_they_stand_or_the_host_has_tried_in_vain() -> None:
    net = NetworkId("n" * 64)
    box = replace(instance("box", "h1"), attachments=(ResolvedAttachment(network=net),), revision=7)
    running = InstanceStatus(instance=box.id, phase=Phase.RUNNING)
    foot = Endpoint(network=net, network_name="n", ifname="eth0")
    stale = replace(running, message="no address", wired_for=6)

    def said(status: InstanceStatus, box: Instance = box) -> str | None:
        result = waiting.answer("wired", box, status, None)
        return None if result is None else result.message

    assert said(running) is None and said(stale) is None
    assert said(replace(stale, wired_for=7)) == "no address"
    assert said(replace(stale, endpoints=(foot,))) == ""
    assert said(replace(running, phase=Phase.EXITED)) == ""
    slower = replace(box, attachments=(ResolvedAttachment(network=net, bandwidth_in=8000),))
    assert said(replace(running, endpoints=(foot,)), slower) is None
    assert said(replace(running, endpoints=(replace(foot, bandwidth_in=8000),)), slower) == ""


@pytest.mark.parametrize(("condition", "paused"), [("paused", True), ("unpaused", False)])
def test_wait_for_a_pause_ends_when_it_is_one_or_can_be_none(
    condition: waiting.Condition, paused: bool
) -> None:
    wanted, other = (Desired.PAUSED, Desired.RUNNING) if paused else (Desired.RUNNING, Desired.PAUSED)
    box = replace(instance("box", "h1"), desired=wanted)
    before = InstanceStatus(instance=box.id, phase=Phase.RUNNING, paused=not paused, message="old words")

    def over(status: InstanceStatus, box: Instance = box) -> bool:
        return waiting.answer(condition, box, status, before) is not None

    assert not over(before)
    assert over(replace(before, paused=paused)) and over(replace(before, phase=Phase.EXITED))
    assert over(before, replace(box, desired=other)), "somebody has changed his mind"
    assert over(replace(before, message="runc says no"))


def test_wait_ends_with_the_words_of_a_host_that_is_lost() -> None:
    box = instance("box", "h1")
    lost = InstanceStatus(instance=box.id, phase=Phase.LOST, message="host h1 is lost: it fell silent")
    for condition in ("created", "running", "stopped", "wired"):
        result = waiting.answer(condition, box, lost, None)
        assert result is not None and (result.phase, result.message) == ("lost", lost.message)


def test_wait_for_a_removal_ends_when_the_host_is_lost_that_was_to_do_it() -> None:
    box = instance("box", "h1")
    lost = InstanceStatus(instance=box.id, phase=Phase.LOST, message="host h1 is lost: it fell silent")
    assert waiting.answer("removed", box, lost, None) is None, "nobody has asked for it yet"
    going = replace(box, desired=Desired.REMOVED)
    assert waiting.answer("removed", going, replace(lost, phase=Phase.RUNNING), None) is None
    result = waiting.answer("removed", going, lost, None)
    assert result is not None and (result.phase, result.message) == ("lost", lost.message)
