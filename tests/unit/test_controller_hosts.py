"""Hosts that join: who gets a name, and whose certificate a host is known by."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from controller.commands.hosts import admit, disowned, host_named, token_for, used
from controller.plan import Plan
from controller.snapshot import Cluster
from model.api import JoinRequest
from model.errors import AlreadyExists, Unauthenticated
from model.ids import HostId
from model.records import JoinToken
from model.status import HostState

ONE, TWO = HostId("1" * 64), HostId("2" * 64)
REQUEST = JoinRequest(secret="s", csr="", name="web", address="192.0.2.1", labels={})


def joins(
    cluster: Cluster,
    ident: HostId,
    *,
    connected: bool = False,
    name: str = "web",
    replaces: str = "",
    proven: str = "",
) -> Plan:
    return admit(
        cluster,
        replace(REQUEST, name=name),
        now=1.0,
        ident=ident,
        fingerprint=f"of {ident}",
        connected=connected,
        replaces=replaces,
        proven=proven,
    )


def after(cluster: Cluster, plan: Plan) -> Cluster:
    return cluster.apply([item.record for item in plan.items], (), cluster.revision + 1)[0]


def test_second_of_two_hosts_that_join_at_once_under_one_name_is_refused() -> None:
    cluster = after(Cluster(), joins(Cluster(), ONE))
    with pytest.raises(AlreadyExists, match="another host has just joined as web") as refusal:
        joins(cluster, TWO)
    assert "--name" in refusal.value.hint
    assert len(after(cluster, joins(cluster, TWO, name="other")).hosts) == 2


def known(certificate: str = "an older one", state: HostState = HostState.LOST) -> Cluster:
    """A fleet that knows a host `web`, which is away."""
    cluster = after(Cluster(), joins(Cluster(), ONE))
    return cluster.apply([replace(cluster.hosts[ONE], certificate=certificate, state=state)], (), 2)[0]


@pytest.mark.parametrize("state", list(HostState))
def test_token_alone_gives_nobody_the_place_of_a_host_that_is_known(state: HostState) -> None:
    cluster = known(state=state)
    for words in ({}, {"proven": "another's"}):
        with pytest.raises(AlreadyExists, match=rf"web is in the fleet \({state}\)") as refusal:
            joins(cluster, ONE, **words)
        assert "flota token create --replace web" in refusal.value.hint
        assert "flota node rm web" in refusal.value.hint
    with pytest.raises(AlreadyExists):
        joins(known(certificate=""), ONE, proven="")  # one of which nothing was recorded


def test_member_whose_join_was_cut_off_is_told_the_way_back_and_no_other_name() -> None:
    with pytest.raises(AlreadyExists, match="its certificate is not the newest") as refusal:
        joins(known(certificate="of the join that was cut"), ONE, proven="of before")
    assert "a join of it was cut off" in refusal.value.hint
    assert "flota token create --replace web" in refusal.value.hint and "--name" not in refusal.value.hint


@pytest.mark.parametrize("words", [{"proven": "an older one"}, {"replaces": ONE}])
def test_host_that_is_known_as_itself_keeps_its_record_and_has_a_new_certificate(words: Any) -> None:
    cluster = known()
    with pytest.raises(AlreadyExists, match="is in the fleet and connected"):
        joins(cluster, ONE, connected=True, **words)
    found = host_named(after(cluster, joins(cluster, ONE, **words)), "web")
    assert found is not None and (found.id, found.certificate) == (ONE, f"of {ONE}")


def test_token_for_one_hosts_place_is_for_no_other_and_no_new_one() -> None:
    cluster = after(known(), joins(known(), TWO, name="db"))
    for ident, name in ((TWO, "db"), (HostId("3" * 64), "new")):
        with pytest.raises(AlreadyExists, match=f"this token is for web alone, not {name}"):
            joins(cluster, ident, name=name, replaces=ONE)
    with pytest.raises(AlreadyExists, match="a host that is gone alone"):
        joins(Cluster(), TWO, replaces=ONE)


def test_only_the_newest_certificate_is_the_hosts() -> None:
    host = after(Cluster(), joins(Cluster(), ONE)).hosts[ONE]
    assert disowned(host, f"of {ONE}") == ""
    for older in ("an older one", ""):
        words = disowned(host, older)
        assert "web joined again since this certificate was made" in words
        assert "flota token create --replace web" in words
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
