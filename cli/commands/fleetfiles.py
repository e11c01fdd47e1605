"""What `flota fleet export` and `import` do: a fleet's specs as files, kept under version control.

Loaded when one of them runs: all specs and their rules are a tenth of a second.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from cli import render
from cli.context import App, out, segment
from cli.parse.fleetfiles import (
    MARK,
    Change,
    ContainerFile,
    FleetFiles,
    Spec,
    VolumeFile,
    changes,
    document,
    files,
    from_document,
    from_files,
    plain,
)
from model.api import (
    CreateInstance,
    CreateVolume,
    InstanceInfo,
    NetworkInfo,
    PolicyInfo,
    ServiceInfo,
    UpdatePolicy,
    UpdateService,
    UpdateSettings,
    VolumeInfo,
)
from model.codec import decode_json
from model.errors import FlotaError, InvalidInput, NotFound, Problem
from model.ids import InstanceId
from model.policy import PolicySpec
from model.records import Desired, FleetSettings
from model.spec import ContainerSpec, NetworkSpec, ServiceSpec, VolumeSpec

INGRESS = "ingress"
MOST = 64 << 20


def export(app: App, where: str) -> None:
    """Write them to a folder, or with `-` to stdout."""
    found = _present(app)
    if where == "-":
        sys.stdout.write(document(found))
        return
    texts = files(found)
    folder = Path(where)
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if left := sorted(_read_folder(folder).keys() - texts.keys()):
        words = f"{folder} also has files of what this fleet does not have: {', '.join(left)}"
        sys.stderr.write(f"flota: {render.clean(words)}\n")


def import_(app: App, where: str, *, dry_run: bool) -> None:
    """Make the fleet as the files of a folder say, or with `-` stdin. Raises InvalidInput with all that is
    wrong; nothing is done then."""
    stdin = where == "-"
    want = from_document("stdin", sys.stdin.read()) if stdin else from_files(_read_folder(Path(where)))
    have = _present(app, every=True)
    found = changes(have, want)
    _refuse(app, found, want)
    for change in found:
        for line in change.lines():
            out(render.clean(line))
        if not dry_run:
            _do(app, change, have, want)
    if not found:
        out("nothing changes")


def _read_folder(folder: Path) -> dict[str, str]:
    """Relative path → text of each YAML file. Raises NotFound, InvalidInput."""
    if not folder.is_dir():
        raise NotFound(f"{folder} is no folder")
    texts: dict[str, str] = {}
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith((".yaml", ".yml")) and not name.startswith("."):
                path = Path(top, name)
                try:
                    texts[path.relative_to(folder).as_posix()] = path.read_text(encoding="utf-8")
                except (OSError, UnicodeDecodeError) as error:
                    raise InvalidInput(f"{path} can't be read: {error}") from error
    if sum(map(len, texts.values())) > MOST:
        raise InvalidInput(f"the files in {folder} are larger than {MOST >> 20} MiB together")
    return texts


# -- what there is ------------------------------------------------------------------------------------
def _values(app: App, path: str, type_: type[Any], **query: Any) -> list[Any]:
    return [decode_json(json.dumps(one), type_) for one in app.call("GET", path, **query)]


def _present(app: App, *, every: bool = False) -> FleetFiles:
    """The fleet's specs; `every`: also containers that are not marked."""
    hosts = app.call("GET", "/v1/hosts")
    settings = decode_json(json.dumps(app.call("GET", "/v1/settings")), FleetSettings)
    found: dict[str, list[Spec]] = {
        "networks": [
            n.network.spec
            for n in _values(app, "/v1/networks", NetworkInfo)
            if not n.network.predefined and n.network.spec.name != INGRESS
        ],
        "volumes": _volumes(_values(app, "/v1/volumes", VolumeInfo) if hosts else []),
        "policies": [p.policy.spec for p in _values(app, "/v1/policies", PolicyInfo)],
        "services": [
            s.service.spec for s in _values(app, "/v1/services", ServiceInfo) if not s.service.removed
        ],
        "containers": _containers(_values(app, "/v1/instances", InstanceInfo, all=True), every=every),
    }
    return FleetFiles(
        settings=UpdateSettings(
            vxlan_port=settings.vxlan_port,
            vni_range=(settings.vni_first, settings.vni_last),
            source_ports=settings.source_ports,
            image_gc_high=settings.images.gc_high,
            image_gc_low=settings.images.gc_low,
            image_keep=settings.images.keep,
            image_min_age=settings.images.min_age,
            build_cache_size=settings.build_cache.max_size,
            build_cache_age=settings.build_cache.max_age,
            build_cache_free=settings.build_cache.min_free,
        ),
        objects={kind: {spec.name: spec for spec in specs} for kind, specs in found.items() if specs},
    )


def _volumes(infos: list[VolumeInfo]) -> list[Spec]:
    """One of each name: which hosts have it."""
    found: dict[str, VolumeFile] = {}
    for info in sorted(infos, key=lambda i: (i.volume.name, i.host)):
        if not info.volume.anonymous:
            known = found.get(info.volume.name, VolumeFile(name=info.volume.name, labels=info.volume.labels))
            hosts = (*known.hosts, info.host)
            found[known.name] = VolumeFile(name=known.name, labels=known.labels, hosts=hosts)
    return list(found.values())


def _containers(infos: list[InstanceInfo], *, every: bool) -> list[Spec]:
    names = {i.instance.id: i.instance.name for i in infos}
    return [
        ContainerFile(
            name=i.instance.name,
            spec=_by_name(i.instance.spec, names),
            placement=i.instance.placement,
            host=i.host_name if i.instance.pinned else "",
            start=i.instance.desired is Desired.RUNNING,
        )
        for i in infos
        if i.instance.service is None
        and i.instance.desired is not Desired.REMOVED
        and (every or MARK in i.instance.spec.labels)
    ]


def _by_name(spec: ContainerSpec, names: dict[InstanceId, str]) -> ContainerSpec:
    """One on another's network names that one."""
    from msgspec.structs import replace

    kept = []
    for network in spec.networks:
        kind, colon, ident = network.network.partition(":")
        name = names.get(InstanceId(ident)) if kind == "container" and colon else None
        kept.append(replace(network, network=f"container:{name}") if name else network)
    return replace(spec, networks=tuple(kept))


# -- what is to be done -------------------------------------------------------------------------------
def _refuse(app: App, found: tuple[Change, ...], want: FleetFiles) -> None:
    """Raises InvalidInput for all that no import can do, before it does anything."""
    hosts = {host["host"]["spec"]["name"] for host in app.call("GET", "/v1/hosts")}
    problems = [
        Problem(
            path=f"{c.kind}/{c.name}", message=f"it can't be changed ({'; '.join(c.fields)}): remove it first"
        )
        for c in found
        if not c.new and (c.kind in ("networks", "containers") or _relabelled(c))
    ]
    for kind, name, spec in want.each():
        wanted = spec.hosts if isinstance(spec, VolumeFile) else ()
        wanted = (spec.host,) if isinstance(spec, ContainerFile) and spec.host else wanted
        for host in wanted:
            if host not in hosts:
                problems.append(Problem(path=f"{kind}/{name}", message=f"there is no host {host[:80]!r}"))
    if problems:
        raise InvalidInput.of("nothing was imported", tuple(problems))


def _relabelled(change: Change) -> bool:
    """A volume's labels are those that it was made with."""
    return change.kind == "volumes" and any(field.startswith("labels") for field in change.fields)


def _do(app: App, change: Change, have: FleetFiles, want: FleetFiles) -> None:
    """Raises what the fleet says, with the object's name; a second import goes on from there."""
    if change.kind == "fleet":
        app.call("PATCH", "/v1/settings", body=plain(want.settings))
        return
    spec = want.objects[change.kind][change.name]
    try:
        _put(app, spec, new=change.new, have=have.objects.get(change.kind, {}).get(change.name))
    except FlotaError as error:
        error.message = f"{change.kind}/{change.name}: {error.message}"
        raise


def _put(app: App, spec: Spec, *, new: bool, have: Spec | None) -> None:
    match spec:
        case NetworkSpec():
            app.call("POST", "/v1/networks", body=plain(spec))
        case PolicySpec() if new:
            app.call("POST", "/v1/policies", body=plain(spec))
        case PolicySpec():
            app.call("PUT", f"/v1/policies/{segment(spec.name)}", body=plain(UpdatePolicy(spec=spec)))
        case ServiceSpec() if new:
            app.call("POST", "/v1/services", body=plain(spec))
        case ServiceSpec():
            app.call("PUT", f"/v1/services/{segment(spec.name)}", body=plain(UpdateService(spec=spec)))
        case VolumeFile():
            there = have.hosts if isinstance(have, VolumeFile) else ()
            body = plain(CreateVolume(spec=VolumeSpec(name=spec.name, labels=spec.labels)))
            for host in spec.hosts:
                if host not in there:
                    app.call("POST", "/v1/volumes", body=body, host=host)
        case ContainerFile():
            request = CreateInstance(
                spec=spec.spec, name=spec.name, placement=spec.placement, host=spec.host, start=spec.start
            )
            app.call("POST", "/v1/instances", body=plain(request))
