"""References as Docker reads and shows them; digests; chain ids."""

from __future__ import annotations

import pytest

from image.digest import chain_ids, check, encoded, is_digest, of
from image.reference import familiar, parse
from model.errors import Damaged, InvalidInput

D = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "name", "short"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3.19", "docker.io/library/alpine:3.19", "alpine:3.19"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("quay.io/me/app:v1", "quay.io/me/app:v1", "quay.io/me/app:v1"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest", "127.0.0.1:5000/a/b/c:latest"),
        ("[::1]:5000/app:1", "[::1]:5000/app:1", "[::1]:5000/app:1"),
        ("Registry/app", "Registry/app:latest", "Registry/app:latest"),
        ("a__b/c-d.e_f", "docker.io/a__b/c-d.e_f:latest", "a__b/c-d.e_f:latest"),
        ("alpine:" + "t" * 128, "docker.io/library/alpine:" + "t" * 128, "alpine:" + "t" * 128),
        (f"alpine@{D}", f"docker.io/library/alpine@{D}", f"alpine@{D}"),
        (f"alpine:3@{D}", "docker.io/library/alpine:3", f"alpine:3@{D}"),
    ],
)
def test_reference_has_its_full_and_its_short_form(text: str, name: str, short: str) -> None:
    parsed = parse(text)
    assert (parsed.name, parsed.familiar) == (name, short)
    assert parse(parsed.name).name == parsed.name
    assert parse(parsed.familiar) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "alpine ", "\nalpine", "alpine\n", "Alpine", "a//b", "/a", "a/", "a/../b", "..", ".", "-a",
        "a-", "a___b", "a..b", "alpine:", "alpine:-x", "alpine:a b", "alpine:" + "t" * 129, "a:b:c",
        "a/b:c/d",
        "alpine@", "alpine@sha256:abc", f"alpine@{D.upper()}", f"alpine@md5:{'a' * 32}", f"alpine@{D}\n",
        "alpine@sha256:" + "g" * 64, "a" * 64, "x/" + "a" * 255, "ho_st.com/app", "host:port/app", "a\0b",
        "%2e%2e/app", "ähm", "http://host/app", "host.com/UPPER",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_upper_case_is_named_as_the_fault() -> None:
    with pytest.raises(InvalidInput, match="lower case"):
        parse("host.com/App")


def test_familiar_keeps_other_registries() -> None:
    assert familiar("quay.io/library/x:1") == "quay.io/library/x:1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:../../etc",
        D + "\n",
        "md5:" + "a" * 32,
    ],
)
def test_digest_is_strict(text: str) -> None:
    assert not is_digest(text)
    for use in (check, encoded):
        with pytest.raises(Damaged):
            use(text)


def test_other_algorithm_is_named_as_the_fault() -> None:
    with pytest.raises(Damaged, match="only sha256"):
        check("sha512:" + "a" * 128)


def test_chain_ids_are_those_of_the_specification() -> None:
    first, second = of(b"1"), of(b"2")
    assert chain_ids(()) == ()
    assert chain_ids((first, second)) == (first, of(f"{first} {second}".encode()))
