"""Where a registry's images are fetched: itself or mirrors, over which kind of connection. Pure.

Invariant: plain HTTP only to loopback addresses, to registries named insecure, and to mirrors written with
`http://`; whatever a mirror is, an image that is named by its digest is that image.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlsplit

from model.errors import InvalidInput
from model.registries import DEFAULT_HOST, normal_host
from model.spec import Struct

CERTIFICATES = ("/etc/flota/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")
"""Folders with one folder per registry, `HOST[:PORT]`: `*.crt` are CAs that are trusted for it, `x.cert` with
`x.key` is who we are (Docker's layout, `man 5 containers-certs.d`)."""
_SERVED_BY = {DEFAULT_HOST: "registry-1.docker.io"}


class Endpoint(Struct):
    """One server. `base` is a URL without a slash at its end, to which `/v2/…` is added."""

    base: str
    registry: str
    """The host in the image's name."""
    mirror: bool = False

    @property
    def host(self) -> str:
        """HOST[:PORT], for words and certificates."""
        return urlsplit(self.base).netloc


class RegistrySettings(Struct):
    """What this host was told of registries."""

    insecure: tuple[str, ...] = ()
    mirrors: Mapping[str, tuple[str, ...]] = {}
    """Base URLs by registry, tried in order before it."""
    certificates: tuple[str, ...] = CERTIFICATES


def settings(
    *, insecure: Sequence[str] = (), mirrors: Sequence[str] = (), certificates: Sequence[str] = ()
) -> RegistrySettings:
    """Of the words of options: `HOST[:PORT]`, and `[REGISTRY=]URL` (docker.io's without); `certificates` are
    folders that are looked into before those of an administrator. Raises InvalidInput."""
    by_host: dict[str, tuple[str, ...]] = {}
    for word in mirrors:
        head, equals, url = word.partition("=")
        registry, url = (normal_host(head), url) if equals and "://" not in head else (DEFAULT_HOST, word)
        by_host[registry] = (*by_host.get(registry, ()), _base(url, word))
    return RegistrySettings(
        insecure=tuple(normal_host(word) for word in insecure),
        mirrors=by_host,
        certificates=(*certificates, *CERTIFICATES),
    )


def _base(url: str, word: str) -> str:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits, parts = False, urlsplit("")
    if not fits or parts.username is not None or parts.query or parts.fragment:
        raise InvalidInput(
            f"--registry-mirror {word[:200]}: that is no mirror",
            hint="Write [REGISTRY=]https://HOST[:PORT][/PATH]; http:// is spoken only if it is written",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def own(registry: str, insecure: Collection[str]) -> Endpoint:
    """The registry itself."""
    host = _SERVED_BY.get(registry, registry)
    scheme = "http" if registry in insecure or host in insecure or is_loopback(host) else "https"
    return Endpoint(base=f"{scheme}://{host}", registry=registry)


def endpoints(registry: str, told: RegistrySettings) -> tuple[Endpoint, ...]:
    """Mirrors in order, the registry itself last."""
    mirrors = (Endpoint(base=base, registry=registry, mirror=True) for base in told.mirrors.get(registry, ()))
    return (*mirrors, own(registry, told.insecure))


def is_loopback(host: str) -> bool:
    """Of `host` or `host:port`."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    return is_loopback_name(name)


def is_loopback_name(name: str) -> bool:
    """Of a name or an address alone, without brackets."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
