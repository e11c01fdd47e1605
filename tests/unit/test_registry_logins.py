"""Logins on their way: the header of requests, what shows of them, what the controller keeps."""

from __future__ import annotations

import base64
import json

import pytest

from controller.logins import for_pull, plan_login, with_login
from controller.pki import Authority
from controller.plan import Plan, delete
from controller.snapshot import Cluster
from model.errors import Damaged, InvalidInput, NotFound
from model.ids import HostId, InstanceId, ServiceId
from model.records import Instance, KeptLogin, Service
from model.registries import NOBODY, Login, decode_header, encode_header, normal_host, registry_of
from model.spec import ContainerSpec, ServiceSpec

ADA = Login(user="ada", password="pä$$:word")
HOST, OTHER = HostId("h1"), HostId("h2")
SERVICE = ServiceId("s1")
CA = Authority.new("fleet")


@pytest.mark.parametrize("login", [ADA, Login(identity="t"), Login(token="t"), NOBODY])
def test_header_brings_a_login_whole(login: Login) -> None:
    assert decode_header(encode_header(login, "a.example")) == login


def test_header_of_docker_is_understood_in_all_its_forms() -> None:
    auth = base64.b64encode(b"ada:secret").decode()
    for value in ({"username": "ada", "password": "secret", "email": "a@b"}, {"auth": auth}):
        for encode in (base64.urlsafe_b64encode, base64.b64encode):
            text = encode(json.dumps(value).encode()).decode()
            assert (
                decode_header(text) == decode_header(text.rstrip("=")) == Login(user="ada", password="secret")
            )
    for nothing in (b"{}", b"null"):
        assert decode_header(base64.urlsafe_b64encode(nothing).decode()) == NOBODY


@pytest.mark.parametrize("text", ["%", "e30=x", "bm9wZQ==", "W10=", "A" * 9000, "eyJhdXRoIjogIiUifQ=="])
def test_header_that_holds_no_login_is_refused_without_its_content(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_header(text)
    assert text not in str(caught.value)


def test_login_shows_no_secret() -> None:
    login = Login(user="ada", password="canary", identity="canary", token="canary")
    assert "canary" not in f"{login!r} {login} {[login]} {Instance!r}"


@pytest.mark.parametrize(
    ("name", "registry"),
    [
        ("alpine", "docker.io"),
        ("team/app:1", "docker.io"),
        ("index.docker.io/team/app", "docker.io"),
        ("localhost/app", "localhost"),
        ("a.example:5000/app@sha256:x", "a.example:5000"),
    ],
)
def test_registry_of_a_name_is_dockers(name: str, registry: str) -> None:
    assert registry_of(name) == registry


@pytest.mark.parametrize("text", ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"])
def test_docker_hub_has_one_name(text: str) -> None:
    assert normal_host(text) == "docker.io"


# -- what the controller keeps ----------------------------------------------------------------------
def cluster(*records: Service | Instance | KeptLogin) -> Cluster:
    return Cluster().apply(records, (), 1)[0]


def service(image: str = "a.example/app:1") -> Service:
    return Service(id=SERVICE, spec=ServiceSpec(name="web", container=ContainerSpec(image=image)), revision=1)


def instance(
    ident: str = "i1", *, of: ServiceId | None = SERVICE, image: str = "a.example/app:1"
) -> Instance:
    spec = ContainerSpec(image=image)
    return Instance(id=InstanceId(ident), name=ident, spec=spec, service=of, host=HOST, revision=1)


def kept(login: Login = ADA, image: str = "a.example/app:1", owner: str = SERVICE) -> KeptLogin:
    plan = with_login(cluster(), Plan(subject=owner), image, login, CA.seal)
    [item] = plan.items
    assert isinstance(item.record, KeptLogin)
    return item.record


def test_login_is_given_to_the_host_of_an_instance_of_its_service() -> None:
    seen = cluster(service(), instance(), kept())
    assert for_pull(seen, HOST, InstanceId("i1"), CA.unseal) == ADA


def test_login_is_given_to_no_other_host() -> None:
    with pytest.raises(NotFound):
        for_pull(cluster(service(), instance(), kept()), OTHER, InstanceId("i1"), CA.unseal)
    with pytest.raises(NotFound):
        for_pull(cluster(service(), instance(), kept()), HOST, InstanceId("i2"), CA.unseal)


def test_login_is_given_for_its_own_registry_alone() -> None:
    seen = cluster(service(), instance(image="b.example/app:1"), kept())
    assert for_pull(seen, HOST, InstanceId("i1"), CA.unseal) == NOBODY


def test_plain_container_has_a_login_of_its_own() -> None:
    plain = instance("i2", of=None)
    seen = cluster(service(), plain, kept(), kept(Login(user="eve", password="x"), owner="i2"))
    assert for_pull(seen, HOST, InstanceId("i2"), CA.unseal).user == "eve"


def test_what_is_stored_shows_neither_user_nor_password() -> None:
    record = kept()
    assert b"ada" not in record.sealed and b"word" not in record.sealed
    assert kept().sealed != record.sealed


def test_sealed_login_opens_under_its_own_fleet_and_owner_alone() -> None:
    record = kept()
    with pytest.raises(Damaged):
        Authority.new("fleet").unseal(record.sealed, f"login/{SERVICE}/a.example")
    with pytest.raises(Damaged):
        CA.unseal(record.sealed, "login/s2/a.example")
    with pytest.raises(Damaged):
        CA.unseal(record.sealed[:-1], f"login/{SERVICE}/a.example")


def test_nobodys_login_leaves_what_is_kept() -> None:
    plan = Plan(subject=SERVICE)
    assert with_login(cluster(kept()), plan, "a.example/app:2", NOBODY, CA.seal) == plan


def test_login_goes_with_its_owner() -> None:
    record = kept()
    assert plan_login(cluster(service(), record), SERVICE).empty
    [item] = plan_login(cluster(record), SERVICE).items
    assert item == delete(record, item.reason)
