"""Bundles: one file with all of flota that a host needs to run it, made on the operator's machine.

A bundle holds this very flota, as it runs here (from a clone or installed), and its dependencies for the
host's Python, machine and C library: files whose digests are in `requirements.lock`. The host needs neither
the internet nor pip. Invariant: a release's name says its content: version, dash, twelve digits of a digest
of flota's own files, the lock among them; it is the same for all targets. What is in the cache under a
bundle's name is whole.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from deploy.releases import Manifest
from model.codec import encode_json
from model.errors import Damaged, Exhausted, FlotaError, InvalidInput, Unavailable, Unsupported
from model.spec import Struct
from model.version import VERSION
from model.wire import OLDEST, PROTOCOL

HOME = Path(__file__).resolve().parents[1]
LOCK = Path(__file__).with_name("requirements.lock")
PACKAGES = ("model", "aio", "net", "image", "agent", "controller", "api", "cli", "deploy", "bench")
"""As the wheel has them."""
MACHINES = "deploy/vagrant"
"""Stays here: where vagrant was run, its machines' private keys and disks are there."""
PLATFORMS = {
    "gnu": (
        "manylinux_2_28",
        "manylinux_2_27",
        "manylinux_2_26",
        "manylinux_2_24",
        "manylinux_2_17",
        "manylinux2014",
    ),
    "musl": ("musllinux_1_2", "musllinux_1_1"),
}
"""Oldest C library: that of Debian 10 and RHEL 8; Alpine 3.13."""
DOWNLOAD_DEADLINE = 600.0
KEPT = 12
"""Bundles that stay in the cache: those used last. A change of flota's code makes a new one."""
LEVEL = 6
"""Of gzip: a host on the same floor waits for the disk, one far away for the line."""


class Target(Struct):
    """What a host is, as far as compiled code minds."""

    python: str = "3.11"
    machine: str = "x86_64"
    libc: Literal["gnu", "musl"] = "gnu"

    def __str__(self) -> str:
        return f"py{self.python}-{self.machine}-{self.libc}"


class Bundle(Struct):
    path: Path
    release: str
    sha256: str
    """Of the file."""


def default_cache() -> Path:
    """Of the person who runs this."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "flota" / "bundles"


def release_name() -> str:
    """Of what runs here."""
    found = hashlib.sha256()
    for name, path in _own_files():
        found.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"{VERSION}-{found.hexdigest()[:12]}"


def build(target: Target, cache: Path) -> Bundle:
    """The bundle of this flota for such a host: from the cache, or made now, which may take a minute. Raises
    InvalidInput, Unsupported (no such wheels, no pip), Unavailable (no index of packages, no room)."""
    _check(target)
    release = release_name()
    path = cache / f"flota-{release}-{target}.tar.gz"
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(cache / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the second one finds what the first has made
            if not path.exists():
                _make(target, release, path, _libraries(target, cache))
                _forget(cache.glob("flota-*.tar.gz"))
            os.utime(path)
        return Bundle(path=path, release=release, sha256=_digest(path))
    except OSError as error:
        hint = "See that it can be written and its disk has room"
        raise Unavailable(f"{error.filename or cache}: {error.strerror}", hint=hint) from error


def _forget(bundles: Iterable[Path]) -> None:
    """The older ones. Who is sending one has it open."""
    for old in sorted(bundles, key=lambda p: p.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)


def _check(target: Target) -> None:
    numbers = re.fullmatch(r"3\.(\d{1,2})", target.python)
    if numbers is None or int(numbers[1]) < 11:
        raise Unsupported(f"flota needs Python 3.11 or newer, not {target.python[:20]!r}")
    if not re.fullmatch(r"[a-z0-9_]{2,16}", target.machine) or target.libc not in PLATFORMS:
        raise InvalidInput(f"there are no hosts of kind {target}")


def _own_files() -> Iterator[tuple[str, Path]]:
    """(Path in site-packages, file), in order."""
    for package in sorted(PACKAGES):
        for path in sorted((HOME / package).rglob("*")):
            name = path.relative_to(HOME)
            hidden = any(part == "__pycache__" or part.startswith(".") for part in name.parts)
            if path.is_file() and not hidden and not name.is_relative_to(MACHINES):
                yield name.as_posix(), path


def _wheels(target: Target, cache: Path) -> list[Path]:
    """The dependencies, from the index of packages unless they are here already."""
    key = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    folder = cache / "wheels" / f"{key}-{target}"
    if not folder.exists():
        aside = folder.with_name(f".{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            _download(target, aside)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return sorted(folder.glob("*.whl"))


def _download(target: Target, folder: Path) -> None:
    words = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    words += ["--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={target.python}"]
    words += [f"--platform={name}_{target.machine}" for name in PLATFORMS[target.libc]]
    words += ["--require-hashes", "--requirement", str(LOCK), "--dest", str(folder)]
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=DOWNLOAD_DEADLINE)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"pip did not fetch the dependencies in {DOWNLOAD_DEADLINE:g} s") from error
    if done.returncode:
        raise _why(target, done.stderr)


def _why(target: Target, said: str) -> FlotaError:
    """pip's last words as an error of ours."""
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    words = errors[-1] if errors else (said.strip().splitlines() or ["it said nothing"])[-1]
    if "No module named pip" in said:
        hint = "Install it: `python3 -m ensurepip`, or your distribution's python3-pip"
        return Unsupported(f"a bundle is made by pip, which {sys.executable} lacks", hint=hint)
    if "DO NOT MATCH THE HASHES" in said:
        names = ", ".join(re.findall(r"^ +(\S+) from ", said, re.MULTILINE)[:3]) or "a dependency"
        hint = "Somebody may have changed it: see what index pip is set up for"
        return Damaged(f"{names}: the index has another file than flota was tested with", hint=hint)
    if "No space left" in said:
        return Exhausted("no room for the dependencies", hint="Make room, or set XDG_CACHE_HOME")
    if "No matching distribution" in words and "connection" not in said.lower():
        return Unsupported(f"no bundle for {target}: {words}")
    return Unavailable(
        f"the dependencies for {target} can't be fetched: {words}", hint="Is the index reachable?"
    )


def _make(target: Target, release: str, path: Path, libraries: Path) -> None:
    work, aside = path.with_name(f".{path.name}.d"), path.with_name(f".{path.name}")
    shutil.rmtree(work, ignore_errors=True)
    try:
        site = work / "site"
        shutil.copytree(libraries, site, copy_function=os.link)
        _lay_out(site)
        if compiled := _compiles(target):
            _compile(site, *PACKAGES)
        manifest = Manifest(
            release=release,
            version=VERSION,
            target={"python": target.python, "machine": target.machine, "libc": target.libc},
            protocol=PROTOCOL,
            oldest=OLDEST,
            compiled=compiled,
            size=sum(_on_disk(p) for p in site.rglob("*")),
        )
        with open(aside, "wb") as file:
            _pack(file, manifest, site)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        aside.unlink(missing_ok=True)


def _libraries(target: Target, cache: Path) -> Path:
    """The dependencies unpacked, and compiled where that can be done here: made once for all releases."""
    wheels = _wheels(target, cache)
    folder = cache / "libraries" / f"{wheels[0].parent.name}{'-compiled' * _compiles(target)}"
    if not folder.exists():
        aside = folder.with_name(f".{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            for wheel in wheels:
                _unzip(wheel, aside)
            if _compiles(target):
                _compile(aside)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def _compiles(target: Target) -> bool:
    return target.python == "{}.{}".format(*sys.version_info[:2])


def _unzip(wheel: Path, site: Path) -> None:
    """What of a wheel belongs to site-packages; scripts of dependencies are nobody's business on a host."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                first, _, rest = name.partition("/")
                inside = name
                if first.endswith(".data"):
                    kind, _, inside = rest.partition("/")
                    if kind not in ("purelib", "platlib"):
                        continue
                if inside.endswith("/") or not inside:
                    continue
                if ".." in inside.split("/") or inside.startswith("/"):
                    raise Damaged(f"{wheel.name} holds {inside!r}")
                target = site / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
    except zipfile.BadZipFile as error:
        raise Damaged(f"{wheel} is damaged: {error}", hint=f"Remove {wheel.parent}") from error


def _lay_out(site: Path) -> None:
    """flota itself, in the form that tools know an installed package by."""
    for name, path in _own_files():
        target = site / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(path.stat().st_mode & 0o755)
    about = site / f"flota-{VERSION}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: flota\nVersion: {VERSION}\n")
    (about / "INSTALLER").write_text("flota\n")
    (about / "RECORD").write_text("".join(f"{name},,\n" for name, _ in _own_files()))
    (about / "entry_points.txt").write_text("[console_scripts]\nflota = cli.main:main\n")


def _compile(site: Path, *folders: str) -> None:
    """For the target's own Python, which is ours too; it never looks at the source's time."""
    words = [sys.executable, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    words += ["-s", str(site), *(str(site / name) for name in folders or (".",))]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Damaged(f"the bundle can't be compiled: {(done.stdout or done.stderr).strip()[-300:]}")


def _pack(file: io.BufferedWriter, manifest: Manifest, site: Path) -> None:
    """Equal content gives equal bytes: no times, no owners. The manifest stands first."""
    with (
        gzip.GzipFile(fileobj=file, mode="wb", compresslevel=LEVEL, mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        head = encode_json(manifest)
        tar.addfile(_entry("release.json", len(head)), io.BytesIO(head))
        for path in sorted(site.rglob("*")):
            if path.is_file():
                info = _entry(f"site/{path.relative_to(site).as_posix()}", path.stat().st_size)
                info.mode = 0o755 if os.access(path, os.X_OK) else 0o644
                with open(path, "rb") as content:
                    tar.addfile(info, content)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info


def _on_disk(path: Path) -> int:
    return -(-path.stat().st_size // 4096) * 4096


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
