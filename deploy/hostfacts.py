"""What a host is, as it told by `deploy.hostprobe`. Pure.

What a host says is read as from an enemy: known keys alone, each of its form, bounded in number and length.
What is not of its form counts as not said.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from deploy.hostprobe import BEGIN, END, FEATURES
from model.errors import CommandFailed
from model.spec import Struct

T = TypeVar("T")
MOST_BYTES, MOST_LINES, MOST_EACH = 1 << 16, 600, 128

_WORD = re.compile(r"[A-Za-z0-9_.+:/@~-]{1,200}\Z")
_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f]{0,400}\Z")
_ID = re.compile(r"[0-9a-f]{32}(?:[0-9a-f]{32})?\Z")
_NUMBER = re.compile(r"[0-9]{1,15}\Z")
_VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})(?:[.\w+-]{0,30})\Z")


class Python(Struct):
    path: str
    version: tuple[int, int]
    bare: bool = False
    """It lacks modules that flota needs (venv, ssl, sqlite3 …)."""


class Address(Struct):
    link: str
    address: str
    """With its prefix: 192.0.2.10/24."""
    mtu: int = 0


class Membership(Struct):
    """The fleet that a host has joined."""

    fleet_id: str
    host_id: str = ""
    name: str = ""


class Facts(Struct):
    """Empty or zero: not known."""

    os_id: str = ""
    os_like: tuple[str, ...] = ()
    os_version: str = ""
    os_name: str = ""
    hostname: str = ""
    kernel: str = ""
    machine: str = ""
    libc: str = ""
    """gnu, musl"""
    cgroup: int = 0
    """1, 2; 0: none is mounted."""
    controllers: tuple[str, ...] = ()
    features: Mapping[str, str] = {}
    """Of `hostprobe.FEATURES`: yes, no or unknown."""
    pythons: tuple[Python, ...] = ()
    free_opt: int = -1
    """Bytes free for /opt/flota; -1: not known."""
    free_lib: int = -1
    """Bytes free for /var/lib/flota."""
    memory: int = 0
    swap: bool = False
    addresses: tuple[Address, ...] = ()
    default_link: str = ""
    """That the default route leads to."""
    ports: tuple[str, ...] = ()
    """Of 7420/tcp, 4789/udp those that somebody listens on."""
    programs: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    opt: str = ""
    """/opt/flota: ours, foreign; empty: there is none."""
    release: str = ""
    """The one that is current; empty: none that is whole."""
    pinned: Mapping[str, str] = {}
    """Daemon → release that it is started from; one that is missing is started from `release`."""
    command: str = ""
    """/usr/local/bin/flota: ours, foreign; empty: there is none."""
    member: Membership | None = None
    controls: str = ""
    """Id of the fleet whose controller it is."""
    running: frozenset[str] = frozenset()
    """Of agent, controller."""
    others: frozenset[str] = frozenset()
    """docker, swarm, podman, k3s, kubernetes"""
    selinux: str = ""
    init: str = ""
    """systemd, openrc"""
    clock_off: float = 0.0
    """Seconds that its clock is ahead of ours."""
    clock_doubt: float = 0.0
    """Half of the time that asking took, and what the host rounds."""

    def python(self, least: tuple[int, int]) -> Python | None:
        """The one to run on: the system's own if it is new enough, else the newest."""
        good = [python for python in self.pythons if python.version >= least and not python.bare]
        return next(iter(good), None)


def parse(said: bytes, *, host: str, asked_at: float, answered_at: float) -> Facts:
    """What the probe said; times are ours, seconds since the epoch. Raises CommandFailed, naming `host`,
    where it did not say all."""
    lines = _lines(said, host)
    values: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition(" ")
        if len(found := values.setdefault(key, [])) < MOST_EACH:
            found.append(value)
    one = _One(values)
    doubt = (answered_at - asked_at) / 2
    clock = one.number("time")
    return Facts(
        os_id=one.word("os.ID"),
        os_like=one.words("os.ID_LIKE"),
        os_version=one.word("os.VERSION_ID"),
        os_name=one.text("os.PRETTY_NAME"),
        hostname=one.word("hostname"),
        kernel=one.word("kernel"),
        machine=one.word("machine"),
        libc=one.among("libc", "gnu", "musl"),
        cgroup=min(one.number("cgroup"), 2),
        controllers=one.words("controllers"),
        features=_features(values.get("feature", [])),
        pythons=_all(_python, values.get("python", [])),
        free_opt=one.number("free.opt", -1) * 1024,
        free_lib=one.number("free.lib", -1) * 1024,
        memory=one.number("memory") * 1024,
        swap=one.number("swap") > 0,
        addresses=_all(_address, values.get("address", [])),
        default_link=one.word("route"),
        ports=tuple(sorted({"7420/tcp", "4789/udp"} & set(values.get("port", [])))),
        programs=frozenset(filter(_WORD.match, values.get("program", []))),
        files=frozenset(filter(_TEXT.match, values.get("file", []))),
        opt=one.among("opt", "ours", "foreign"),
        release=one.word("release"),
        pinned=_pinned(values.get("pinned", [])),
        command=one.among("command", "ours", "foreign"),
        member=_member(values.get("member", [])),
        controls=_id(one.text("controls")),
        running=frozenset({"agent", "controller"} & set(values.get("running", []))),
        others=frozenset(filter(_WORD.match, values.get("other", []))),
        selinux=one.among("selinux", "Enforcing", "Permissive", "Disabled"),
        init=one.among("init", "systemd", "openrc"),
        clock_off=clock + 0.5 - (asked_at + answered_at) / 2 if clock else 0.0,
        clock_doubt=doubt + 0.5,
    )


def _lines(said: bytes, host: str) -> list[str]:
    """Between the marks: login shells may say something before."""
    text = said[: MOST_BYTES * 2].decode(errors="replace")
    _, begin, rest = text.partition(f"{BEGIN}\n")
    body, end, _ = rest.partition(f"{END}\n")
    if not begin or not end or len(body) > MOST_BYTES or body.count("\n") > MOST_LINES:
        words = text.strip().splitlines()[-1][:200] if text.strip() else "nothing"
        raise CommandFailed(
            f"{host}: it does not tell what it is; it said: {words}",
            hint="flota needs a POSIX shell as this user's login shell",
        )
    return body.splitlines()


class _One:
    """The first value of a key, in the form that is asked for."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self._values = values

    def text(self, key: str) -> str:
        value = self._values.get(key, [""])[0].strip()
        return value if _TEXT.match(value) else ""

    def word(self, key: str) -> str:
        value = self.text(key)
        return value if _WORD.match(value) else ""

    def words(self, key: str) -> tuple[str, ...]:
        return tuple(word for word in self.text(key).split()[:64] if _WORD.match(word))

    def number(self, key: str, unknown: int = 0) -> int:
        value = self.text(key)
        return int(value) if _NUMBER.match(value) else unknown

    def among(self, key: str, *known: str) -> str:
        value = self.text(key)
        return value if value in known else ""


def _all(make: Callable[[str], T | None], values: list[str]) -> tuple[T, ...]:
    return tuple(made for value in values if (made := make(value)) is not None)


def _features(values: list[str]) -> dict[str, str]:
    pairs = (value.split(" ") for value in values)
    told = {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[1] in ("yes", "no")}
    return {name: told.get(name, "unknown") for name in FEATURES}


def _python(value: str) -> Python | None:
    path, _, rest = value.partition(" ")
    version, _, bare = rest.partition(" ")
    numbers = _VERSION.match(version)
    if not path.startswith("/") or not _WORD.match(path) or numbers is None:
        return None
    return Python(path=path, version=(int(numbers[1]), int(numbers[2])), bare=bool(bare))


def _address(value: str) -> Address | None:
    parts = value.split(" ")
    if len(parts) != 3 or not _WORD.match(parts[0]):
        return None
    try:
        ipaddress.ip_interface(parts[1])
    except ValueError:
        return None
    return Address(link=parts[0], address=parts[1], mtu=int(parts[2]) if _NUMBER.match(parts[2]) else 0)


def _pinned(values: list[str]) -> dict[str, str]:
    pairs = (value.partition(" ") for value in values)
    return {name: to for name, _, to in pairs if name in ("agent", "controller") and _WORD.match(to)}


def _member(values: list[str]) -> Membership | None:
    """One whose fleet can't be read is still a member."""
    if not values:
        return None
    parts = [*values[0].split(" "), "", "", ""]
    name = parts[2] if _WORD.match(parts[2]) else ""
    return Membership(fleet_id=_id(parts[0]), host_id=_id(parts[1]), name=name)


def _id(text: str) -> str:
    return text if _ID.match(text) else ""
