"""Words that end up in resolv.conf, hosts files and the resolver's zones: what they may be. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from model.errors import Problem
from model.ids import NAME
from model.spec import ContainerSpec, EndpointWish

MOST_DOMAINS, MOST_DOMAIN_BYTES = 32, 2048
"""Of a search list; older C libraries take fewer, none takes more (Kubernetes draws the line here too)."""
MOST_LABEL = 63
"""RFC 1035, section 2.3.4."""
MOST_LINKS = 256
_DOMAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?\Z")
_OPTION = re.compile(r"[A-Za-z0-9_:.-]{1,80}\Z")


def resolver_problems(spec: ContainerSpec, at: str) -> Iterator[Problem]:
    """Of `--dns`, `--dns-search`, `--dns-option` and `--add-host`."""
    for index, server in enumerate(spec.dns):
        if not _is_address(server.partition("%")[0]):
            yield _p(f"{at}.dns[{index}]", f"{server[:60]!r} is not an IP address")
    for index, domain in enumerate(spec.dns_search):
        if domain != "." and not (_DOMAIN.match(domain) and _labels_fit(domain)):
            yield _p(f"{at}.dns_search[{index}]", f"{domain[:60]!r} is not a domain")
    if len(spec.dns_search) > MOST_DOMAINS or sum(map(len, spec.dns_search)) > MOST_DOMAIN_BYTES:
        yield _p(f"{at}.dns_search", f"is more than {MOST_DOMAINS} domains or {MOST_DOMAIN_BYTES} bytes")
    for index, option in enumerate(spec.dns_options):
        if not _OPTION.match(option):
            yield _p(f"{at}.dns_options[{index}]", f"{option[:60]!r} is no option of resolv.conf")
    for index, entry in enumerate(spec.extra_hosts):
        name, _, address = entry.partition("=" if "=" in entry else ":")
        if not _DOMAIN.match(name) or not (address == "host-gateway" or _is_address(address.strip("[]"))):
            yield _p(f"{at}.extra_hosts[{index}]", f"{entry[:80]!r} is not NAME:ADDRESS")


def endpoint_problems(wish: EndpointWish, at: str) -> Iterator[Problem]:
    """What is wrong with the names that a foot on a network gives and has."""
    for index, alias in enumerate(wish.aliases):
        if problem := alias_problem(alias):
            yield _p(f"{at}.aliases[{index}]", problem)
    if len(wish.links) > MOST_LINKS:
        yield _p(f"{at}.links", f"are more than {MOST_LINKS}")
    for alias, name in wish.links.items():
        if problem := alias_problem(alias):
            yield _p(f"{at}.links", problem)
        elif not NAME.match(name):
            yield _p(f"{at}.links.{alias}", f"{name[:80]!r} is no container's name")


def alias_problem(alias: str) -> str:
    """Why this can't be a further name of a container, "" when it can: what names containers may be, its
    labels short enough to be asked for, and not a name that never leaves its asker (RFC 6761, 6.3)."""
    if not NAME.match(alias):
        return f"invalid name {alias[:80]!r}"
    if not _labels_fit(alias):
        return f"{alias[:80]!r} has a part of more than {MOST_LABEL} characters"
    if alias.lower().rpartition(".")[2] == "localhost":
        return f"{alias[:80]!r} is each container's own"
    return ""


def _labels_fit(name: str) -> bool:
    return all(0 < len(label) <= MOST_LABEL for label in name.removesuffix(".").split("."))


def _is_address(text: str) -> bool:
    try:
        return "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _p(path: str, message: str) -> Problem:
    return Problem(path=path, message=message)
