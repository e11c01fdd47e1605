"""Hosts that join: who gets a name, and whose certificate a host is known by."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from controller.commands.hosts import admit, disowned, host_named, token_for, used
from controller.plan import Plan
from controller.snapshot import Cluster
from model.api import JoinRequest
from model.errors import AlreadyExists, Unauthenticated
from model.ids import HostId
from model.records import JoinToken

ONE, TWO = HostId("1" * 64), HostId("2" * 64)
REQUEST = JoinRequest(secret="s", csr="", name="web", address="192.0.2.1", labels={})


def joins(cluster: Cluster, ident: HostId, *, connected: bool = False, name: str = "web") -> Plan:
    request = replace(REQUEST, name=name)
    return admit(cluster, request, now=1.0, ident=ident, fingerprint=f"of {ident}", connected=connected)


def after(cluster: Cluster, plan: Plan) -> Cluster:
    return cluster.apply([item.record for item in plan.items], (), cluster.revision + 1)[0]


def test_second_of_two_hosts_that_join_at_once_under_one_name_is_refused() -> None:
    cluster = after(Cluster(), joins(Cluster(), ONE))
    with pytest.raises(AlreadyExists, match="another host has just joined as web") as refusal:
        joins(cluster, TWO)
    assert "--name" in refusal.value.hint
    assert len(after(cluster, joins(cluster, TWO, name="other")).hosts) == 2


def test_host_that_joins_again_keeps_its_record_and_has_a_new_certificate() -> None:
    cluster = after(Cluster(), joins(Cluster(), ONE))
    with pytest.raises(AlreadyExists, match="is in the fleet and connected"):
        joins(cluster, ONE, connected=True)
    stale = cluster.apply([replace(cluster.hosts[ONE], certificate="an older one")], (), 2)[0]
    again = after(stale, joins(stale, ONE))
    found = host_named(again, "web")
    assert found is not None and (found.id, found.certificate) == (ONE, f"of {ONE}")


def test_only_the_newest_certificate_is_the_hosts() -> None:
    host = after(Cluster(), joins(Cluster(), ONE)).hosts[ONE]
    assert disowned(host, f"of {ONE}") == ""
    for older in ("an older one", ""):
        assert "web joined again since this certificate was made" in disowned(host, older)
    assert disowned(replace(host, certificate=""), "any") == "", "nothing was recorded to compare with"


@pytest.mark.parametrize(("once", "left"), [(True, 0), (False, 1)])
def test_a_token_that_is_good_once_goes_with_the_first_host_that_joins_by_it(once: bool, left: int) -> None:
    token = JoinToken(id="t" * 64, secret_hash="h", once=once)
    cluster = Cluster().apply([token], (), 1)[0]
    plan = used(joins(cluster, ONE), token_for(cluster, "h", 1.0))
    puts = [item.record for item in plan.items if not item.delete]
    gone = [item.record for item in plan.items if item.delete]
    after_it = cluster.apply(puts, gone, 2)[0]
    assert len(after_it.hosts) == 1 and len(after_it.tokens) == left
    if once:
        with pytest.raises(Unauthenticated, match="not known"):
            token_for(after_it, "h", 1.0)
