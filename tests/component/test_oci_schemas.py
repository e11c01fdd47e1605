"""What we tell a runtime, and the lists of platforms that we make, are valid by OCI's own schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.oci.facts import Device
from agent.oci.seccomp import SeccompPolicy
from agent.ocispec import ContainerFacts, HostLimits, container_config
from cli.parse import manifests as lists
from image.indexes import described, made
from model.image import ImageConfig
from model.remoteimages import RemoteImage
from model.spec import BlkioDevice, ContainerSpec, Mount, Resources, Ulimit
from model.status import Platform
from tests.support.images import INDEX, MANIFEST, Built, image, index, member, tar
from tests.support.ocischemas import faults

V1 = HostLimits(cpus=2, hard_limits={"nofile": 20000}, init_path="/usr/bin/tini-static", kernel=(6, 1))
V2 = HostLimits(
    cpus=2,
    cgroup_v2=True,
    init_path="/usr/bin/tini-static",
    kernel=(6, 1),
    devices=(Device("/dev/null", "c", 1, 3, 0o666),),
)
IMAGE = ImageConfig(entrypoint=("entry",), cmd=("cmd",), env=("A=1",), user="1000:1000", workdir="/srv")
MOUNTS = (
    Mount(type="bind", target="/a", source="/b", read_only=True, propagation="rshared"),
    Mount(type="volume", target="/v", source="/c"),
    Mount(type="tmpfs", target="/t", tmpfs_size=1 << 20, tmpfs_options=("noexec",)),
)
LIMITS = Resources(
    nano_cpus=1_500_000_000,
    memory=64 << 20,
    memory_swap=128 << 20,
    pids=50,
    cpu_shares=512,
    cpuset_cpus="0-1",
    cpuset_mems="0",
    blkio_weight=100,
    blkio_devices=(
        BlkioDevice(path="/dev/a", weight=20, read_bps=9, write_bps=8, read_iops=7, write_iops=6),
    ),
)
SPECS: dict[str, dict[str, Any]] = {
    "plain": {},
    "every limit": {"resources": LIMITS, "oom_score_adj": 100, "ulimits": (Ulimit("nofile", 10, 20),)},
    "mounts": {"mounts": MOUNTS, "read_only": True, "shm_size": 1 << 20},
    "terminal": {"tty": True, "stdin": True, "init": True},
    "as the host": {"pid_mode": "host", "ipc_mode": "host", "uts_mode": "host", "cgroup_namespace": "host"},
    "privileged": {"privileged": True},
    "strict": {"security_profile": "strict", "cap_add": ("NET_BIND_SERVICE",), "no_new_privileges": True},
    "open": {"seccomp": "unconfined", "masked_paths": (), "readonly_paths": (), "cap_drop": ("ALL",)},
    "switches": {"sysctls": {"net.ipv4.ip_forward": "1"}, "annotations": {"a": "b"}, "groups": ("5",)},
    "devices": {"device_rules": ("c 10:200 rwm", "b 8:* r")},
}


V1_ALONE = Resources(memory_swappiness=10, oom_kill_disable=True)


@pytest.mark.parametrize("host", [V1, V2], ids=["cgroup v1", "cgroup v2"])
@pytest.mark.parametrize("words", SPECS.values(), ids=SPECS)
def test_configuration_of_a_container_is_valid_by_the_runtimes_schema(
    words: dict[str, Any], host: HostLimits
) -> None:
    more = {"resources": V1_ALONE} if host is V1 and not words else {}
    spec = ContainerSpec(image="x", **{**words, **more})
    facts = ContainerFacts(
        hostname="web",
        rootfs="/r",
        cgroups_path="/flota/x",
        netns="/n",
        mounts=spec.mounts,
        etc={"/etc/hosts": "/state/hosts"},
        devices=(Device("/dev/fuse", "c", 10, 229, 0o666),),
        blocks={"/dev/a": (8, 0)},
    )
    profile = Path("/usr/share/containers/seccomp.json").read_bytes()
    policy = SeccompPolicy(profile, arch="amd64", kernel=(6, 1))
    config = container_config(spec, IMAGE, facts, host, seccomp=policy)
    known = {"rshared": "shared", "rslave": "slave"}  # runtimes take both, as Docker says them
    if "rootfsPropagation" in config["linux"]:
        config["linux"]["rootfsPropagation"] = known[config["linux"]["rootfsPropagation"]]
    assert faults("runtime-config", json.dumps(config).encode()) == []
    config["process"]["args"] = "sh"
    assert faults("runtime-config", json.dumps(config).encode()) != []


BUILT = {arch: image([tar(member("x", arch.encode()))], arch=arch) for arch in ("amd64", "arm64")}


def of_platforms(built: dict[str, Built]) -> bytes:
    return made([described(one.manifest, Platform(os="linux", arch=arch)) for arch, one in built.items()])


def by_hand(built: dict[str, Built]) -> bytes:
    """`flota manifest create` of an image, and of an index; then `annotate`."""
    one, other = built.values()
    alone = RemoteImage(
        ref="r.example/a:1",
        digest=one.digest,
        size=len(one.manifest),
        media_type=MANIFEST,
        document=one.manifest.decode(),
        platforms=("linux/amd64",),
    )
    several = RemoteImage(ref="r.example/b:1", digest="x", document=index((other, "arm64")).decode())
    members = (*lists.members_of(alone.ref, alone), *lists.members_of(several.ref, several))
    whole = lists.amended(None, "r.example/all:1", members, amend=False)
    wishes = {"variant": "v8", "os.version": "1", "os.features": ["x"]}
    return lists.document(lists.annotated(whole, "r.example/b:1", wishes)).encode()


@pytest.mark.parametrize("way", [of_platforms, by_hand])
def test_list_of_platforms_is_valid_by_the_images_schema(way: Any) -> None:
    data = way(BUILT)
    assert faults("image-index", data) == [] and json.loads(data)["mediaType"] == INDEX
    assert faults("image-index", data.replace(b"sha256:", b"sha256-")) != []
