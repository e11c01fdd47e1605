"""When a host's certificate is renewed, and what is taken for its next one."""

from __future__ import annotations

import time

import pytest
from msgspec.structs import replace

from agent.join import Enrollment, new_key, pem_of, signing_request
from agent.renewal import AT, SPREAD, Life, due, life_of, renewed
from controller.pki import Authority
from model.errors import Damaged
from model.renewal import RenewReply

DAY = 86400.0
HOST = "1" * 64
HOSTS = [f"{number:064x}" for number in range(300)]


def test_certificate_is_due_before_two_thirds_of_its_life_and_hosts_are_spread() -> None:
    life = Life(1000.0, 1000.0 + 90 * DAY)
    days = sorted((due(life, host) - life.start) / DAY for host in HOSTS)
    assert 90 * (AT - SPREAD) <= days[0] < 53.5 and 59 < days[-1] <= 60
    most = max(sum(1 for day in days if at <= day < at + 1) for at in range(52, 60))
    assert most < len(HOSTS) / 4, "of a fleet that was made in an hour, so many on one day"


def test_due_time_of_a_host_stays_what_it_is() -> None:
    life = Life(0.0, 90 * DAY)
    assert {due(life, HOST) for _ in range(3)} == {due(life, HOST)}
    assert due(Life(5.0, 90 * DAY + 5.0), HOST) == pytest.approx(due(life, HOST) + 5.0)


def enrolled(authority: Authority) -> Enrollment:
    key = new_key()
    return Enrollment(
        host_id=HOST,
        fleet_id="f",
        controllers=("https://192.0.2.1:7420",),
        certificate=authority.host(signing_request(key, "n"), HOST).certificate.decode(),
        key=pem_of(key),
        ca=authority.pem.decode(),
        name="n",
    )


def test_life_of_a_host_is_ninety_days() -> None:
    life = life_of(enrolled(Authority.new("f")).certificate)
    assert life.end - time.time() == pytest.approx(90 * DAY, abs=60)
    with pytest.raises(ValueError, match="PEM"):
        life_of("none")


def test_reply_is_taken_only_as_a_certificate_of_the_fleet_for_the_new_key() -> None:
    authority, key = Authority.new("f"), new_key()
    before = enrolled(authority)
    request = signing_request(key, "n")
    good = RenewReply(certificate=authority.host(request, HOST).certificate.decode())
    after = renewed(before, key, good)
    assert after == replace(before, certificate=good.certificate, key=pem_of(key))
    stranger = Authority.new("f").host(request, HOST).certificate.decode()
    for spoilt in ("", "none", stranger, before.ca.replace("A", "B")):
        with pytest.raises(Damaged, match="no certificate of this fleet"):
            renewed(before, key, RenewReply(certificate=spoilt))
    with pytest.raises(Damaged, match="for another key"):
        renewed(before, new_key(), good)
