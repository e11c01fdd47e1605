"""Hosts that join: who gets a name, and whose certificate a host is known by."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from controller.commands.hosts import (
    admit,
    disowned,
    follows,
    host_named,
    promote,
    renew,
    token_for,
    used,
)
from controller.plan import Plan
from controller.snapshot import Cluster
from model.api import JoinRequest
from model.errors import AlreadyExists, Forbidden, NotFound, Unauthenticated
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
        assert "web joined again or renewed its certificate since this one" in words
        assert "flota token create --replace web" in words
    assert disowned(replace(host, certificate=""), "any") == "", "nothing was recorded to compare with"


def renewed(cluster: Cluster, shown: str, made: str) -> Cluster:
    return after(cluster, renew(cluster, ONE, shown=shown, fingerprint=made))


def good(cluster: Cluster) -> set[str]:
    return {word for word in ("a", "b", "c", "d", "") if not disowned(cluster.hosts[ONE], word)}


def test_renewed_host_has_two_certificates_until_the_new_one_is_in_use() -> None:
    cluster = renewed(known("a"), "a", "b")
    assert good(cluster) == {"a", "b"}
    assert promote(cluster, ONE, "a").empty, "the host has not got it yet"
    assert promote(cluster, ONE, "").empty and promote(cluster, TWO, "b").empty
    later = after(cluster, promote(cluster, ONE, "b"))
    assert good(later) == {"b"} and promote(later, ONE, "b").empty
    assert follows(cluster.hosts[ONE], later.hosts[ONE])
    assert not follows(known("a").hosts[ONE], cluster.hosts[ONE])


def test_reply_that_was_lost_leaves_a_host_that_renews_again() -> None:
    cluster = renewed(renewed(known("a"), "a", "b"), "a", "c")
    assert good(cluster) == {"a", "c"}
    assert good(after(cluster, promote(cluster, ONE, "c"))) == {"c"}


def test_renewal_by_the_next_certificate_makes_that_the_hosts() -> None:
    before = renewed(known("a"), "a", "b")
    cluster = renewed(before, "b", "c")
    assert good(cluster) == {"b", "c"} and follows(before.hosts[ONE], cluster.hosts[ONE])


def test_certificate_of_before_renews_nothing() -> None:
    cluster = renewed(known("a"), "a", "b")
    cluster = after(cluster, promote(cluster, ONE, "b"))
    with pytest.raises(Forbidden, match="web joined again or renewed"):
        renew(cluster, ONE, shown="a", fingerprint="c")
    with pytest.raises(NotFound):
        renew(cluster, TWO, shown="b", fingerprint="c")


def test_host_that_joins_again_has_that_certificate_alone() -> None:
    cluster = renewed(known("a"), "a", "b")
    for proven in ("a", "b"):
        host = after(cluster, joins(cluster, ONE, proven=proven)).hosts[ONE]
        assert (host.certificate, host.renewal) == (f"of {ONE}", "")
        assert not follows(cluster.hosts[ONE], host)
    with pytest.raises(AlreadyExists):
        joins(known("a"), ONE, proven="")


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
