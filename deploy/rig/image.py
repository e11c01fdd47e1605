"""The machine that virtual guests are: a bare Debian 12 with systemd and SSH, as a disk and a kernel.

Nothing of flota is installed in it; the packages that flota needs lie in it as a folder that apt takes for a
repository, so that provisioning it is real and needs no internet. An image is kept under the digest of its
recipe (`folder`), and appears there whole or not at all. Made by mmdebstrap, mke2fs and qemu-img, as root,
without loop devices. `python -m deploy.rig.image` makes it and prints where it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

from model.spec import Struct

CACHE = Path("/var/cache/flota-rig")
SUITE = "bookworm"
DISK_SIZE = "6G"
DEBS = "/var/cache/flota-debs"
UNUSED_DAYS = 14
"""An image that nobody used for so long goes when another is made."""

BASE_PACKAGES = (
    "systemd-sysv", "udev", "dbus", "kmod", "procps", "openssh-server", "sudo", "python3", "iproute2",
    "iputils-ping", "linux-image-cloud-amd64",
)  # fmt: skip
"""What a host has before flota comes."""

OFFERED_PACKAGES = ("ca-certificates", "wireguard-tools")
"""Beside lib.sh's FLOTA_PACKAGES, what provisioning may ask for."""

KEY = "id"
HOST_KEY = "ssh_host_ed25519_key.pub"
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "systemd-timesyncd.service", "systemd-networkd-wait-online.service",
    "getty@tty1.service", "systemd-pstore.service", "modprobe@drm.service", "modprobe@loop.service",
    "modprobe@fuse.service", "modprobe@dm_mod.service", "modprobe@efi_pstore.service", "dev-hugepages.mount",
    "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
)  # fmt: skip
FILES = {
    "etc/fstab": (0o644, "LABEL=rigroot / ext4 defaults,noatime 0 0\n"),
    "etc/hostname": (0o644, "rig\n"),
    "etc/hosts": (0o644, "127.0.0.1 localhost\n::1 localhost\n"),
    "etc/resolv.conf": (0o644, "nameserver 10.77.0.1\n"),
    "etc/machine-id": (0o444, ""),
    "etc/apt/sources.list": (0o644, f"deb [trusted=yes] file:{DEBS} ./\n"),
    "etc/apt/apt.conf.d/90rig": (0o644, 'Acquire::Languages "none";\nAPT::Install-Recommends "false";\n'),
    # The kernel's word ip= wins: its file is 90-eth0.network.
    "etc/systemd/network/95-dhcp.network": (
        0o644,
        "[Match]\nName=eth0 en*\n[Network]\nDHCP=ipv4\n[DHCPv4]\nClientIdentifier=mac\n",
    ),
    "etc/ssh/sshd_config.d/rig.conf": (
        0o644,
        "PermitRootLogin prohibit-password\nUseDNS no\nPasswordAuthentication no\nPrintMotd no\n"
        "HostKey /etc/ssh/ssh_host_ed25519_key\nMaxStartups 100\nMaxSessions 100\n",
    ),
    "etc/systemd/journald.conf.d/rig.conf": (0o644, "[Journal]\nStorage=persistent\nSystemMaxUse=32M\n"),
    "etc/systemd/system.conf.d/rig.conf": (0o644, "[Manager]\nDefaultTimeoutStopSec=20s\n"),
    "etc/sudoers.d/vagrant": (0o440, "vagrant ALL=(ALL) NOPASSWD: ALL\n"),
}
USERS = ("vagrant", "plain")
"""`vagrant` may do all by sudo without a password, `plain` nothing; root logs in with the same key."""


class Image(Struct):
    folder: Path

    @property
    def disk(self) -> Path:
        """qcow2 of one ext4 file system, label rigroot, without partitions."""
        return self.folder / "root.qcow2"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"

    @property
    def host_key(self) -> str:
        """Fingerprint of the key that every guest shows, as `ssh-keygen -l` prints it."""
        return _run("ssh-keygen", "-lf", str(self.folder / HOST_KEY)).split()[1]

    @property
    def key(self) -> Path:
        """Private SSH key that root and the users accept."""
        return self.folder / KEY


def kept(runtime: Sequence[str], cache: Path = CACHE) -> Image:
    """The image that offers the packages `runtime`, made if it is not there. Raises RuntimeError with the
    words of the program that failed."""
    cache.mkdir(parents=True, exist_ok=True)
    image = Image(folder=cache / recipe(runtime))
    with _alone(cache):
        if not image.folder.is_dir():
            _make(image, runtime)
            _forget_unused(cache)
    os.utime(image.folder)
    return image


def recipe(runtime: Sequence[str]) -> str:
    """Name of an image: what it is made from, digested."""
    text = f"{Path(__file__).read_text()}\n{' '.join(runtime)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def runtime_packages() -> tuple[str, ...]:
    """Debian's packages that flota needs, as the shell's library tells them."""
    library = Path(__file__).parents[1] / "lib.sh"
    words = ["bash", "-c", '. "$1"; echo "$FLOTA_PACKAGES"', "bash", str(library)]
    return tuple(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One maker at a time; others wait for its image."""
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(image: Image, runtime: Sequence[str]) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="making-", dir=image.folder.parent))
    try:
        tree, parts = scratch / "tree", Image(folder=scratch / "image")
        parts.folder.mkdir(mode=0o755)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rig", "-f", str(parts.key))
        _bootstrap(tree, (*runtime, *OFFERED_PACKAGES))
        _configure(tree, parts.key.with_suffix(".pub").read_text())
        _repository(tree / DEBS.lstrip("/"))
        for name, target in (("vmlinuz", parts.kernel), ("initrd.img", parts.initrd)):
            (found,) = (tree / "boot").glob(f"{name}-*")
            shutil.copy(found, target)
        shutil.copy(tree / "etc/ssh" / HOST_KEY, parts.folder / HOST_KEY)
        raw = scratch / "root.raw"
        with open(raw, "wb"):
            _run("truncate", "-s", DISK_SIZE, str(raw))
        options = ("-E", "lazy_itable_init=1,nodiscard", "-m", "0")
        _run("mke2fs", "-q", "-t", "ext4", "-L", "rigroot", *options, "-d", str(tree), str(raw))
        _run("qemu-img", "convert", "-O", "qcow2", str(raw), str(parts.disk))
        os.sync()
        parts.folder.rename(image.folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _bootstrap(tree: Path, offered: Sequence[str]) -> None:
    """A tree of Debian, and in it the archives of `offered` and all that they need."""
    archives = '"$1"/var/cache/apt/archives'
    hooks = {
        "--essential-hook": (
            'mkdir -p "$1/etc/initramfs-tools/conf.d"',
            'printf "MODULES=list\\nCOMPRESS=zstd\\nBUSYBOX=n\\n" >"$1/etc/initramfs-tools/conf.d/rig"',
            'printf "virtio_pci\\nvirtio_blk\\n" >"$1/etc/initramfs-tools/modules"',
        ),
        "--customize-hook": (
            f"rm -f {archives}/*.deb",
            f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get install -y --download-only {" ".join(offered)}',
            f'mkdir -p "$1{DEBS}" && mv {archives}/*.deb "$1{DEBS}"',
        ),
    }
    left_out = (f"path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale", "info"))
    _run(
        "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}",
        "--aptopt=Acquire::Languages \"none\"", '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt={option}" for option in left_out),
        *(f"{option}={words}" for option, list_ in hooks.items() for words in list_),
        SUITE, str(tree),
    )  # fmt: skip


def _configure(tree: Path, public_key: str) -> None:
    for path, (mode, text) in FILES.items():
        _write(tree / path, text, mode)
    for name in USERS:
        _run("chroot", str(tree), "useradd", "-m", "-s", "/bin/bash", name)
    for home in ("root", *(f"home/{name}" for name in USERS)):
        _write(tree / home / ".ssh/authorized_keys", public_key, 0o600)
    for name in USERS:
        _run("chroot", str(tree), "chown", "-R", f"{name}:", f"/home/{name}/.ssh")
    _run("chroot", str(tree), "systemctl", "-q", "enable", "systemd-networkd", "ssh")
    units = tree / "etc/systemd/system"
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    for surplus in ("ssh_host_rsa", "ssh_host_ecdsa"):
        for file in (tree / "etc/ssh").glob(f"{surplus}*"):
            file.unlink()
    (tree / "var/log/journal").mkdir(exist_ok=True)
    for source in (tree / "etc/apt/sources.list.d").iterdir():
        source.unlink()
    shutil.rmtree(tree / "var/lib/apt/lists")


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _repository(folder: Path) -> None:
    """An index of a folder of packages, that apt can read."""
    entries = []
    for deb in sorted(folder.glob("*.deb")):
        control = _run("dpkg-deb", "-f", str(deb)).rstrip("\n")
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        entries.append(f"{control}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n")
    if not entries:
        raise RuntimeError("apt-get downloaded none of the packages that guests are to be offered")
    index = "\n".join(entries).encode()
    (folder / "Packages").write_bytes(index)
    # Without it apt asks for every compressed form that there could be.
    listed = f"SHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} Packages\n"
    (folder / "Release").write_text(f"Suite: flota\nDate: {formatdate(usegmt=True)}\n{listed}")


def _forget_unused(cache: Path) -> None:
    for folder in cache.iterdir():
        if folder.is_dir() and folder.stat().st_mtime < time.time() - UNUSED_DAYS * 86400:
            shutil.rmtree(folder)


def _run(*argv: str) -> str:
    if not shutil.which(argv[0]):
        raise RuntimeError(f"there is no {argv[0]}; install lib.sh's FLOTA_VM_PACKAGES")
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.stdout.write(f"{kept(runtime_packages()).folder}\n")
