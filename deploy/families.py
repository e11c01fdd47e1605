"""Families of distributions: what flota needs of a host, and which packages bring it there. Pure data.

Invariant: a need is met by what is there, whoever brought it (`programs` on the path, `files`), not by the
names of packages; only what is missing is installed, nothing is removed and nothing upgraded on purpose.

Names as of Debian 12 and 13, Ubuntu 22.04 to 26.04, Fedora 40 and later, RHEL and its rebuilds 8 to 10,
Alpine 3.18 and later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from model.spec import Struct

DEBIAN, FEDORA, RHEL, ALPINE = "debian", "fedora", "rhel", "alpine"


class Need(Struct):
    """Something that flota finds on a host and does not bring along."""

    name: str
    why: str
    programs: tuple[str, ...] = ()
    """Any of these on the path meets it."""
    files: tuple[str, ...] = ()
    """Any of these patterns of the shell's meets it."""
    packages: Mapping[str, tuple[str, ...]] = {}
    """By family. A family that is not named has no such package."""
    feature: str = ""
    """Of the kernel: where that is there, this is not needed."""
    fatal: bool = True
    """Without it nothing runs; else one thing doesn't."""


def _everywhere(*names: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys((DEBIAN, FEDORA, RHEL, ALPINE), names)


NEEDS: tuple[Need, ...] = (
    Need(name="runc", why="runs containers", programs=("runc",), packages=_everywhere("runc")),
    Need(
        name="conmon",
        why="holds containers while flota is restarted",
        programs=("conmon",),
        packages=_everywhere("conmon"),
    ),
    Need(
        name="libnftables",
        why="sets packet filters and address translation",
        files=(
            "/usr/lib/*/libnftables.so.1",
            "/lib/*/libnftables.so.1",
            "/usr/lib64/libnftables.so.1",
            "/usr/lib/libnftables.so.1",
        ),
        packages=_everywhere("nftables"),
    ),
    Need(
        name="ip",
        why="shows people what flota made of links and routes",
        programs=("ip",),
        packages={
            DEBIAN: ("iproute2",),
            FEDORA: ("iproute",),
            RHEL: ("iproute",),
            ALPINE: ("iproute2",),
        },
        fatal=False,
    ),
    Need(
        name="seccomp.json",
        why="lists the system calls that containers may make",
        files=("/usr/share/containers/seccomp.json",),
        packages={
            DEBIAN: ("golang-github-containers-common",),
            FEDORA: ("containers-common",),
            RHEL: ("containers-common",),
            ALPINE: ("containers-common",),
        },
    ),
    Need(
        name="init",
        why="is process 1 of containers with --init",
        programs=("catatonit", "docker-init", "tini-static"),
        files=("/usr/libexec/podman/catatonit",),
        packages={
            DEBIAN: ("tini",),
            FEDORA: ("catatonit",),
            RHEL: ("catatonit",),
            ALPINE: ("tini-static",),
        },
        fatal=False,
    ),
    Need(
        name="wireguard-go",
        why="carries encrypted networks where the kernel has no WireGuard",
        programs=("wireguard-go",),
        packages={DEBIAN: ("wireguard-go",), ALPINE: ("wireguard-go",)},
        feature="wireguard",
        fatal=False,
    ),
)
_ABSENT: Mapping[tuple[str, str], frozenset[str]] = {(RHEL, "10"): frozenset({"runc"})}
"""(Family, major version) → needs that its own archive has no package for, though others of the family do."""

PROGRAMS = tuple(name for need in NEEDS for name in need.programs)
FILES = tuple(pattern for need in NEEDS for pattern in need.files)


class Family(Struct):
    """How packages come to a host. `{packages}` stands for their names."""

    name: str
    install: tuple[str, ...]
    refresh: tuple[str, ...] = ()
    """Before, where the lists of what there is are not fetched by `install`."""
    environment: Mapping[str, str] = {}
    present: tuple[str, ...] = ()
    """Followed by a name: ends with 0 where that package is installed."""
    ids: frozenset[str] = frozenset()
    """Values of ID and ID_LIKE in os-release."""
    python: Mapping[str, str] = {}
    """Version, or its beginning → package with a Python of 3.11 or later; the empty one for all others."""


FAMILIES: tuple[Family, ...] = (
    Family(
        name=ALPINE,
        ids=frozenset({"alpine"}),
        install=("apk", "add", "--no-progress", "--"),
        refresh=("apk", "update", "-q"),
        present=("apk", "info", "-e"),
        python={"": "python3"},
    ),
    Family(
        name=DEBIAN,
        ids=frozenset({"debian", "ubuntu", "raspbian", "linuxmint"}),
        install=("apt-get", "install", "-y", "-q", "--no-install-recommends", "--no-upgrade", "--"),
        refresh=("apt-get", "update", "-q"),
        environment={"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"},
        present=("dpkg-query", "-W", "-f", "${db:Status-Status}\\n"),
        python={"": "python3", "22.04": "python3.11"},
    ),
    Family(
        name=RHEL,
        ids=frozenset({"rhel", "centos", "rocky", "almalinux", "ol"}),
        install=("dnf", "install", "-y", "-q", "--setopt=install_weak_deps=False", "--"),
        present=("rpm", "-q"),
        python={"8": "python3.11", "9": "python3.11", "": "python3"},
    ),
    Family(
        name=FEDORA,
        ids=frozenset({"fedora"}),
        install=("dnf", "install", "-y", "-q", "--setopt=install_weak_deps=False", "--"),
        present=("rpm", "-q"),
        python={"": "python3"},
    ),
)
"""In the order in which they are tried: rebuilds of RHEL say that they are like Fedora, too."""
_TOO_OLD: Mapping[str, frozenset[str]] = {DEBIAN: frozenset({"9", "10", "11", "18.04", "20.04"})}
"""Releases whose archive has no Python of 3.11 or later."""


def family_of(os_id: str, os_like: Collection[str] = ()) -> Family | None:
    """By os-release's ID first, then by its ID_LIKE, as that is there for. None: nobody's that we know."""
    for said in ({os_id}, set(os_like)):
        for family in FAMILIES:
            if family.ids & said:
                return family
    return None


def python_package(family: Family, version: str) -> str:
    """Of a Python that flota runs by; empty: this release of the distribution has none."""
    if version in _TOO_OLD.get(family.name, ()):
        return ""
    major = version.partition(".")[0]
    return family.python.get(version) or family.python.get(major) or family.python[""]


def missing(
    programs: Collection[str], files: Collection[str], features: Mapping[str, str] | None = None
) -> tuple[Need, ...]:
    """What a host lacks that has these programs, files (the patterns of FILES that found something) and
    features of the kernel (name → yes, no, unknown)."""
    known = features or {}
    return tuple(
        need
        for need in NEEDS
        if not set(need.programs) & set(programs)
        and not set(need.files) & set(files)
        and not (need.feature and known.get(need.feature) == "yes")
    )


class Supply(Struct):
    """How a host gets what it lacks."""

    packages: tuple[str, ...] = ()
    """To be installed, in order."""
    commands: tuple[tuple[str, ...], ...] = ()
    """That do it, one after another, in `environment`."""
    environment: Mapping[str, str] = {}
    lacks: tuple[Need, ...] = ()
    """That no package of the host's own distribution brings: somebody has to."""
    words: str = ""
    """About those, for people; empty where there are none."""


def supply(family: Family | None, version: str, lacking: Sequence[Need], *, python: bool = False) -> Supply:
    """`version` is os-release's VERSION_ID; `python`: it needs one, too."""
    lacks, packages = [], []
    if python:
        package = python_package(family, version) if family is not None else ""
        if package:
            packages.append(package)
        else:
            lacks.append(PYTHON)
    absent = _ABSENT.get((family.name, version.partition(".")[0]), frozenset()) if family else frozenset()
    for need in lacking:
        brought = need.packages.get(family.name, ()) if family is not None else ()
        if not brought or need.name in absent:
            lacks.append(need)
        packages += [] if need.name in absent else brought
    commands: list[tuple[str, ...]] = []
    if packages and family is not None:
        commands = [family.refresh] if family.refresh else []
        commands.append((*family.install, *packages))
    return Supply(
        packages=tuple(packages),
        commands=tuple(commands),
        environment=family.environment if family is not None and packages else {},
        lacks=tuple(lacks),
        words=_words(family, version, lacks),
    )


def _words(family: Family | None, version: str, lacks: Sequence[Need]) -> str:
    if not lacks:
        return ""
    named = "; ".join(f"{need.name} ({need.why})" for need in lacks)
    if family is None:
        return f"flota does not know this distribution's packages; install by hand: {named}"
    where = ", from EPEL for example" if family.name == RHEL else ""
    return f"{family.name} {version} has no package for: {named}; install it by hand{where}"


PYTHON = Need(name="python3.11", why="runs flota: Python 3.11 or later", programs=("python3.11",))
