"""A fleet's specs as YAML files, and back: what people asked for, nothing that hosts made of it. Pure.

One file per object, `KIND/NAME.yaml` and `fleet.yaml`; or all in one document, a map of kinds. Invariant:
what is written is read as what it was, and written again it is the same bytes. All that is wrong is told at
once, with file, line and field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from cli.parse.yaml12 import line_of, parse_yaml, to_yaml
from model.api import UpdateSettings
from model.codec import convert_strict
from model.errors import InvalidInput, Problem
from model.ids import NAME
from model.netoptions import canonical
from model.networkrules import validate_network
from model.policy import PolicySpec
from model.policyrules import validate_policy
from model.records import FleetSettings
from model.servicerules import kept_up
from model.settingrules import changed, settings_problems
from model.spec import ContainerSpec, NetworkSpec, Placement, ServiceSpec, Struct
from model.validate import validate_container, validate_name, validate_placement, validate_service

MARK = "flota.export"
"""Label of plain containers that are exported."""
SETTINGS = "fleet.yaml"


class ContainerFile(Struct):
    """A plain container."""

    name: str
    spec: ContainerSpec
    placement: Placement = Placement()
    host: str = ""
    """Name of the host that it was told to run on."""
    start: bool = False


class VolumeFile(Struct):
    """A named volume of these hosts."""

    name: str
    labels: Mapping[str, str] = {}
    hosts: tuple[str, ...] = ()


Spec = NetworkSpec | VolumeFile | PolicySpec | ServiceSpec | ContainerFile
TYPES: Mapping[str, type[Spec]] = {
    "networks": NetworkSpec,
    "volumes": VolumeFile,
    "policies": PolicySpec,
    "services": ServiceSpec,
    "containers": ContainerFile,
}
"""In the order in which they are made: what closes comes before what it closes."""


class FleetFiles(Struct):
    """`objects`: kind → name → spec."""

    settings: UpdateSettings = UpdateSettings()
    objects: Mapping[str, Mapping[str, Spec]] = {}

    def each(self) -> Iterator[tuple[str, str, Spec]]:
        for kind in TYPES:
            for name, spec in sorted(self.objects.get(kind, {}).items()):
                yield kind, name, spec


# -- writing ------------------------------------------------------------------------------------------
def plain(value: Struct) -> Any:
    """As in a file: without fields at their defaults."""
    return msgspec.to_builtins(value)


def files(found: FleetFiles) -> dict[str, str]:
    """Path → text."""
    texts = {SETTINGS: to_yaml(plain(found.settings))}
    for kind, name, spec in found.each():
        texts[f"{kind}/{name}.yaml"] = to_yaml(plain(spec))
    return texts


def document(found: FleetFiles) -> str:
    """All of it as one text."""
    kinds = {kind: {} for kind in TYPES if found.objects.get(kind)}  # type: dict[str, dict[str, Any]]
    for kind, name, spec in found.each():
        kinds[kind][name] = plain(spec)
    return to_yaml({"fleet": plain(found.settings), **kinds})


# -- reading ------------------------------------------------------------------------------------------
class _Reader:
    """Lives as long as the reading; `problems` are for people, each with its place."""

    def __init__(self) -> None:
        self.settings = UpdateSettings()
        self.objects: dict[str, dict[str, Spec]] = {}
        self.problems: list[Problem] = []

    def take(self, kind: str, raw: Any, file: str, text: str, at: str = "", called: str = "") -> None:
        """One object of a file, at a path in it. `called`: the name that it must have."""
        try:
            spec = convert_strict(raw, TYPES[kind], "")
        except InvalidInput as error:
            self._tell(error.problems or (Problem(path="", message=error.message),), file, text, at)
            return
        problems = [*checked(spec)]
        if called and spec.name != called:
            problems.append(Problem(path="name", message=f"{spec.name[:80]!r} is not {called[:80]!r}"))
        if spec.name in self.objects.get(kind, {}):
            problems.append(Problem(path="name", message=f"another file has {spec.name[:80]!r} too"))
        self._tell(problems, file, text, at)
        if isinstance(spec, ServiceSpec):
            spec = kept_up(spec)
        self.objects.setdefault(kind, {})[spec.name] = spec

    def set(self, raw: Any, file: str, text: str, at: str = "") -> None:
        try:
            self.settings = convert_strict(raw if raw is not None else {}, UpdateSettings, "")
        except InvalidInput as error:
            self._tell(error.problems, file, text, at)
            return
        self._tell(settings_problems(changed(FleetSettings(), self.settings)), file, text, at)

    def parse(self, file: str, text: str) -> Any:
        try:
            return parse_yaml(file, text, floats=True)
        except InvalidInput as error:
            self.problems.append(Problem(path="", message=error.message))
            return None

    def wrong(self, file: str, text: str, at: str, message: str) -> None:
        self._tell((Problem(path="", message=message),), file, text, at)

    def _tell(self, problems: Iterable[Problem], file: str, text: str, at: str) -> None:
        for problem in problems:
            path = ".".join(filter(None, (at, problem.path)))
            where = f"{file}:{line_of(text, path)}" + (f": {path}" if path else "")
            self.problems.append(Problem(path=where, message=problem.message))

    def done(self) -> FleetFiles:
        if self.problems:
            raise InvalidInput.of("these files can't be imported", tuple(self.problems))
        return FleetFiles(settings=self.settings, objects=self.objects)


def from_files(texts: Mapping[str, str]) -> FleetFiles:
    """Path → text, as `files` gives. Raises InvalidInput with all that is wrong."""
    reader = _Reader()
    for file, text in sorted(texts.items()):
        kind, _, rest = file.partition("/")
        if file == SETTINGS:
            reader.set(reader.parse(file, text), file, text)
        elif kind in TYPES and rest and "/" not in rest:
            raw = reader.parse(file, text)
            if raw is not None:
                reader.take(kind, raw, file, text)
        else:
            known = ", ".join((SETTINGS, *(f"{name}/*.yaml" for name in TYPES)))
            reader.problems.append(Problem(path=file, message=f"no such file is known; there are {known}"))
    return reader.done()


def from_document(name: str, text: str) -> FleetFiles:
    """As `from_files`, of what `document` gives."""
    reader = _Reader()
    found = reader.parse(name, text)
    if found is not None and not isinstance(found, dict):
        reader.wrong(name, text, "", "it is no map of kinds")
        found = None
    for kind, objects in (found or {}).items():
        if kind == "fleet":
            reader.set(objects, name, text, "fleet")
        elif kind not in TYPES:
            reader.wrong(name, text, kind, f"there are fleet, {', '.join(TYPES)}")
        elif not isinstance(objects, dict):
            reader.wrong(name, text, kind, "it is no map of names")
        else:
            for called, raw in objects.items():
                reader.take(kind, raw, name, text, f"{kind}.{called}", called)
    return reader.done()


def checked(spec: Spec) -> Iterator[Problem]:
    """Everything wrong with it that can be seen without the fleet; paths are the file's."""
    if not NAME.match(spec.name):
        yield Problem(path="name", message=f"{spec.name[:80]!r} is no name")
    match spec:
        case NetworkSpec():
            yield from _relative(validate_network(spec))
        case PolicySpec():
            yield from _relative(validate_policy(spec))
        case ServiceSpec():
            yield from _relative(validate_service(spec))
        case ContainerFile():
            yield from validate_name("container", spec.name, "name")
            yield from validate_container(spec.spec, "spec")
            yield from validate_placement(spec.placement, spec.spec, "placement")
        case VolumeFile():
            yield from validate_name("volume", spec.name, "name")


def _relative(problems: Iterable[Problem]) -> Iterator[Problem]:
    for problem in problems:
        path = problem.path.removeprefix("spec").removeprefix(".")
        yield Problem(path=path, message=problem.message)


# -- comparing ----------------------------------------------------------------------------------------
class Change(Struct):
    """One object: `fields` are its differences, each a line; `new`: there is none of that name."""

    kind: str
    name: str
    new: bool
    fields: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        yield f"{'+' if self.new else '~'} {self.kind}/{self.name}"
        yield from (f"    {line}" for line in self.fields)


def changes(have: FleetFiles, want: FleetFiles) -> tuple[Change, ...]:
    """What an import would do, in its order. What is not in the files is left alone."""
    found = [_change("fleet", "settings", plain(have.settings), plain(want.settings), partial=True)]
    for kind, name, spec in want.each():
        known = have.objects.get(kind, {}).get(name)
        if isinstance(spec, NetworkSpec) and isinstance(known, NetworkSpec):
            spec = _filled(spec, known)
        if isinstance(spec, VolumeFile) and isinstance(known, VolumeFile):  # none is taken from a host
            spec = replace(spec, hosts=tuple(dict.fromkeys((*known.hosts, *spec.hosts))))
        if known is None:
            found.append(Change(kind=kind, name=name, new=True))
        elif known != spec:
            found.append(_change(kind, name, plain(known), plain(spec)))
    return tuple(change for change in found if change.new or change.fields)


def _filled(want: NetworkSpec, have: NetworkSpec) -> NetworkSpec:
    """With the subnets that the fleet chose where the file chooses none, and options in the fleet's words."""
    missing = tuple(s for s in have.subnets if s not in want.subnets)
    chosen = not want.subnets or (want.ipv6 and all(":" in s.cidr for s in missing))
    known = all(s in have.subnets for s in want.subnets)
    subnets = have.subnets if chosen and known else want.subnets
    return replace(want, subnets=subnets, options=canonical(want.options))


def _change(kind: str, name: str, old: Any, new: Any, *, partial: bool = False) -> Change:
    before, after = dict(_flat(old, "")), dict(_flat(new, ""))
    keys = (*after, *(k for k in before if k not in after and not partial))
    lines = tuple(
        f"{key}: {_word(before.get(key))} → {_word(after.get(key))}"
        for key in keys
        if before.get(key) != after.get(key)
    )
    return Change(kind=kind, name=name, new=False, fields=lines)


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and (value or not path):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and value:
        for index, item in enumerate(value):
            yield from _flat(item, f"{path}[{index}]")
    else:
        yield path, value


def _word(value: Any) -> str:
    return "-" if value is None else str(value)
