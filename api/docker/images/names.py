"""Names of images as Docker's clients write and read them. Pure.

Ours are full (`docker.io/library/alpine:latest`), theirs familiar (`alpine:latest`).
"""

from __future__ import annotations

from collections.abc import Iterable

from model.registries import DEFAULT_HOST, familiar, split_host

NONE = "<none>:<none>"
NO_DIGEST = "<none>@<none>"


def joined(repository: str, tag: str) -> str:
    """Of a repository, or a whole reference, and a tag or digest that came beside it."""
    if not tag:
        return repository
    if tag.startswith("sha256:"):
        return f"{repository.partition('@')[0]}@{tag}"
    return f"{repository_of(repository)}:{tag}"


def has_tag(ref: str) -> bool:
    """Whether it says which of a repository's images is meant: a tag or a digest."""
    return "@" in ref or ":" in ref.rpartition("/")[2]


def tag_of(ref: str) -> str:
    return "" if "@" in ref else ref.rpartition("/")[2].partition(":")[2]


def repository_of(ref: str) -> str:
    """Without tag and digest, as it was written."""
    bare = ref.partition("@")[0]
    head, slash, last = bare.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def full_repository(ref: str) -> str:
    """`alpine:3` → `docker.io/library/alpine`."""
    host, path = split_host(repository_of(ref))
    if host == DEFAULT_HOST and "/" not in path:
        path = f"library/{path}"
    return f"{host}/{path}"


def full(ref: str) -> str:
    """`alpine` → `docker.io/library/alpine:latest`; with its digest, where it has one."""
    repository = full_repository(ref)
    if "@" in ref:
        return f"{repository}@{ref.partition('@')[2]}"
    return f"{repository}:{tag_of(ref) or 'latest'}"


def shown(names: Iterable[str]) -> list[str]:
    """As clients show them, in order."""
    return sorted(familiar(name) for name in names)


def short(ident: str) -> str:
    """12 digits of an id."""
    return ident.removeprefix("sha256:")[:12]
