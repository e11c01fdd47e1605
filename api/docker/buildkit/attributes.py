"""The attributes of BuildKit's frontend `dockerfile.v0`, as a request to our own builder. Pure.

Source: buildkit, frontend/dockerui/config.go and context.go. Invariant: an attribute that is not known, or
that can't be done, is refused by its name.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from api.docker.buildkit.front import (
    CONTEXT,
    DOCKERFILE,
    Folder,
    Plan,
    cache_ways,
    given,
    names_of,
    outputs_of,
)
from api.docker.builds.request import cpu_quota, remote_context
from api.docker.images.listing import platform_of
from model.build import BuildRequest, CacheWay, Context
from model.errors import InvalidInput, Unsupported
from model.spec import Resources

T = TypeVar("T")
Typed = tuple[str, Mapping[str, str]]
UPLOAD = "http://buildkit-session/"
"""What the main context is called that the client sends as a tar."""
LOCAL = "local:"
MAX_URI = 2048
_READ = frozenset(
    {
        "filename", "target", "platform", "no-cache", "image-resolve-mode", "force-network-mode", "add-hosts",
        "shm-size", "ulimit", "cache-from", "cache-imports", "context", "contextkey", "dockerfilekey",
        "memory", "memswap", "cpushares", "cpuperiod", "cpuquota", "cpusetcpus",
    }
)  # fmt: skip
_IDLE = frozenset({"frontend.caps", "multi-platform", "cmdline", "source"})
_READ_BY_PREFIX = ("build-arg:", "label:", "context:", "local-sessionid:", "attest:")
_IDLE_BY_PREFIX = ("sharedkey:", "vcs:", "input:")


def plan_of(
    attrs: Mapping[str, str],
    exporters: Sequence[Typed],
    exports: Sequence[Typed],
    entitlements: Sequence[str],
    serves: Callable[[str], bool],
) -> Plan:
    """`exports`: of the cache. `serves`: whether the client's session has a method. Raises InvalidInput,
    Unsupported."""
    _check(attrs)
    args = _under(attrs, "build-arg:")
    folders = dict(_named_folders(attrs))
    main, remote = _main(attrs)
    dockerfile = _dockerfile(attrs) if main is not None or "dockerfilekey" in attrs else None
    if main is not None:
        folders = {"": main, **folders}
    request = BuildRequest(
        dockerfile=b"",
        file=attrs.get("filename", "") or "Dockerfile",
        target=attrs.get("target", ""),
        args=args,
        labels=_under(attrs, "label:"),
        names=tuple(dict.fromkeys(names_of(exporters))),
        platforms=tuple(platform_of(one) for one in attrs.get("platform", "").split(",") if one),
        contexts=(remote, *_other_contexts(attrs)),
        no_cache=attrs.get("no-cache") == "",
        no_cache_stages=tuple(one for one in attrs.get("no-cache", "").split(",") if one),
        pull=attrs.get("image-resolve-mode") == "pull",
        network=_network(attrs.get("force-network-mode", "")),
        hosts=tuple(":".join(one) for one in _pairs("add-hosts", attrs.get("add-hosts", ""))),
        resources=_resources(attrs),
        shm_size=_number("shm-size", attrs),
        ulimits=dict(_ulimits(attrs.get("ulimit", ""))),
        allow=tuple(dict.fromkeys(entitlements)),
        outputs=outputs_of(exporters),
        **_ways(attrs, args, exports),
        **given(serves),
        **_attested(attrs),
    )
    return Plan(request=request, dockerfile=dockerfile, folders=folders)


def _check(attrs: Mapping[str, str]) -> None:
    for name, value in attrs.items():
        if name in _READ or name in _IDLE or name.startswith((*_READ_BY_PREFIX, *_IDLE_BY_PREFIX)):
            continue
        if name == "requestid":
            raise Unsupported(
                f"{value[:60]} of a Dockerfile is not answered here", hint="Use flota build --check"
            )
        if value:
            raise Unsupported(f"the build's attribute {name[:60]} is not known here")


def _under(attrs: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name[len(prefix) :]: value for name, value in attrs.items() if name.startswith(prefix)}


# -- contexts -----------------------------------------------------------------------------------------
def _main(attrs: Mapping[str, str]) -> tuple[Folder | None, Context]:
    """The folder that is the main context, if it is one, and how the host knows it."""
    name = attrs.get("contextkey", "") or CONTEXT
    remote = attrs.get(name, "") if name != CONTEXT else attrs.get("context", "")
    if remote.startswith(UPLOAD):
        return None, Context(kind="tar", ref=remote)
    if remote:
        return None, remote_context(remote)
    return _folder(attrs, name), Context(kind="tar", ref=name)


def _dockerfile(attrs: Mapping[str, str]) -> Folder:
    return _folder(attrs, attrs.get("dockerfilekey", "") or DOCKERFILE)


def _folder(attrs: Mapping[str, str], name: str) -> Folder:
    return Folder(name=name, session=attrs.get(f"local-sessionid:{name}", ""))


def _named_folders(attrs: Mapping[str, str]) -> Iterator[tuple[str, Folder]]:
    for name, ref in _under(attrs, "context:").items():
        if ref.startswith(LOCAL):
            yield name, _folder(attrs, ref.removeprefix(LOCAL))


def _other_contexts(attrs: Mapping[str, str]) -> Iterator[Context]:
    """Beside the main one."""
    for name, ref in _under(attrs, "context:").items():
        if ref.startswith(LOCAL):
            yield Context(name=name, kind="tar", ref=ref)
        elif ref.startswith("docker-image://"):
            yield Context(name=name, kind="image", ref=ref.removeprefix("docker-image://"))
        elif ref.startswith(("oci-layout:", "input:", "target:")):
            raise Unsupported(f"build context {name[:60]}: {ref.partition(':')[0]} is not known here")
        else:
            found = remote_context(ref)
            yield Context(name=name, kind=found.kind, ref=ref)


# -- the rest -----------------------------------------------------------------------------------------
def _network(mode: str) -> str:
    if mode not in ("", "sandbox", "default", "none", "host"):
        raise InvalidInput(f"force-network-mode: {mode[:40]!r} is none, host or default")
    return mode if mode in ("none", "host") else ""


def _pairs(name: str, text: str) -> Iterator[tuple[str, str]]:
    for row in csv.reader([text]) if text else ():
        for one in row:
            key, equals, value = one.partition("=")
            if not equals or not key or not value:
                raise InvalidInput(f"{name}: {one[:60]!r} is no NAME=VALUE")
            yield key, value


def _ulimits(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    for name, value in _pairs("ulimit", text):
        soft, _, hard = value.partition(":")
        yield name, (_integer("ulimit", soft), _integer("ulimit", hard or soft))


def _resources(attrs: Mapping[str, str]) -> Resources:
    quota, period = _number("cpuquota", attrs), _number("cpuperiod", attrs)
    return Resources(
        nano_cpus=cpu_quota(quota, period),
        memory=_number("memory", attrs),
        memory_swap=_number("memswap", attrs),
        cpu_shares=_number("cpushares", attrs),
        cpuset_cpus=attrs.get("cpusetcpus", ""),
    )


def _number(name: str, attrs: Mapping[str, str]) -> int:
    return _integer(name, attrs[name]) if attrs.get(name) else 0


def _integer(name: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -2
    if not -1 <= value < 1 << 63:
        raise InvalidInput(f"{name}: {text[:40]!r} is no number that it can be")
    return value


class _Entry(msgspec.Struct, rename="pascal"):
    type: str = ""
    attrs: dict[str, str] | None = None


def _ways(attrs: Mapping[str, str], args: Mapping[str, str], exports: Sequence[Typed]) -> dict[str, Any]:
    found = cache_ways(tuple(one for one in attrs.get("cache-from", "").split(",") if one), args)
    try:
        text = attrs.get("cache-imports", "") or "[]"
        imports = msgspec.json.decode(text, type=list[_Entry] | None) or []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"cache-imports: {error}") from error
    more = tuple(_way(one.type, one.attrs or {}) for one in imports)
    to = tuple(_way(type_, options) for type_, options in exports)
    return {
        "cache_from": (*found.get("cache_from", ()), *more),
        "cache_to": to or found.get("cache_to", ()),
    }


def _way(type_: str, options: Mapping[str, str]) -> CacheWay:
    if type_ not in ("registry", "inline"):
        raise Unsupported(f"a cache of type {type_[:40]!r} is not known here", hint="registry and inline are")
    kind: Literal["registry", "inline"] = "registry" if type_ == "registry" else "inline"
    return CacheWay(kind=kind, options={name: value for name, value in options.items() if value})


def _attested(attrs: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in _under(attrs, "attest:").items():
        options = dict(_pairs(name, text)) if text not in ("", "false", "true") else {}
        if text == "false" or options.pop("disabled", "") == "true":
            continue
        if name == "provenance":
            found |= _provenance(options)
        elif name == "sbom":
            _known("attest:sbom", options, ())
            found["sbom"] = True
        else:
            raise Unsupported(f"attest:{name[:40]} is not known here")
    return found


def _provenance(options: Mapping[str, str]) -> dict[str, Any]:
    """buildx asks for `inline-only` where its user asked for nothing; then nothing is stated."""
    _known("attest:provenance", options, ("mode", "version", "builder-id", "inline-only"))
    mode, version = options.get("mode", "min"), options.get("version", "v0.2")
    if mode not in ("min", "max"):
        raise InvalidInput(f"attest:provenance: mode is min or max, not {mode[:40]!r}")
    if version not in ("v0.2", "v1"):
        raise InvalidInput(f"attest:provenance: version is v0.2 or v1, not {version[:40]!r}")
    ident = options.get("builder-id", "")
    if len(ident) > MAX_URI or not ident.isprintable() or (ident and ":" not in ident):
        raise InvalidInput(f"attest:provenance: builder-id {ident[:80]!r} is no URI")
    if options.get("inline-only") == "true":
        return {}
    return {"provenance": mode, "provenance_version": version, "builder_id": ident}


def _known(what: str, options: Mapping[str, str], names: Sequence[str]) -> None:
    for name in options:
        if name not in names:
            raise Unsupported(f"{what}: {name[:40]} is not known here", hint="Leave it out")
