"""Where images of a registry are fetched from, and over what."""

from __future__ import annotations

import pytest

from image.registry.endpoints import endpoints, own, settings
from model.errors import InvalidInput


def bases(registry: str, *mirrors: str, insecure: tuple[str, ...] = ()) -> list[str]:
    return [e.base for e in endpoints(registry, settings(mirrors=mirrors, insecure=insecure))]


def test_docker_io_is_served_by_its_own_host_over_tls() -> None:
    assert bases("docker.io") == ["https://registry-1.docker.io"]


def test_mirrors_come_first_in_order_and_for_their_registry_alone() -> None:
    told = ("https://a.example/proxy/", "quay.io=http://b.example:5000", "https://c.example")
    assert bases("docker.io", *told) == [
        "https://a.example/proxy",
        "https://c.example",
        "https://registry-1.docker.io",
    ]
    assert bases("quay.io", *told) == ["http://b.example:5000", "https://quay.io"]
    assert bases("ghcr.io", *told) == ["https://ghcr.io"]


@pytest.mark.parametrize(
    "word", ["", "a.example", "ftp://a", "https://", "https://u:p@a", "https://a/?x=1", "q=b"]
)
def test_mirror_that_is_no_url_is_refused(word: str) -> None:
    with pytest.raises(InvalidInput, match="that is no mirror"):
        settings(mirrors=(word,))


@pytest.mark.parametrize(
    ("registry", "insecure", "scheme"),
    [
        ("a.example:5000", (), "https"),
        ("a.example:5000", ("a.example:5000",), "http"),
        ("a.example:5001", ("a.example:5000",), "https"),
        ("localhost:5000", (), "http"),
        ("127.0.0.9", (), "http"),
        ("[::1]:5000", (), "http"),
        ("127.0.0.1.example", (), "https"),
    ],
)
def test_plain_http_is_for_loopback_and_for_what_is_named_insecure(
    registry: str, insecure: tuple[str, ...], scheme: str
) -> None:
    assert own(registry, insecure).base == f"{scheme}://{registry}"


def test_endpoint_knows_its_host_with_the_port() -> None:
    assert own("a.example:5000", ()).host == "a.example:5000"
