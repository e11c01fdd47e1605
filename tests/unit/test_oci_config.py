"""OCI configurations: what becomes of specs, images and facts."""

from __future__ import annotations

from typing import Any

import pytest

from agent.oci import capabilities, users
from agent.ocispec import ContainerFacts, HostLimits, container_config, exec_process, profile_of
from model.errors import FlotaError, InvalidInput, Unsupported
from model.image import ImageConfig
from model.spec import ContainerSpec, Mount, Resources, Ulimit
from model.streams import ExecSpec

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:\nevil:x:4294967296:0::/:\nrel:x:7:7::x:\n"
)
GROUP = b"root:x:0:\napp:x:1001:\naudio:x:29:app,other\nbig:x:99999999999:app\n"
HOST = HostLimits(cpus=2, hard_limits={"nofile": 20000}, init_path="/usr/bin/tini-static")
FACTS = ContainerFacts(
    hostname="web", rootfs="/r", cgroups_path="/flota/x", netns="/n", passwd=PASSWD, group=GROUP
)


def config(image: ImageConfig = ImageConfig(), **words: Any) -> dict[str, Any]:  # noqa: B008
    facts = {k: words.pop(k) for k in tuple(words) if k in ContainerFacts.__struct_fields__ and k != "mounts"}
    words.setdefault("args", ("true",))
    words.setdefault("seccomp", "unconfined")
    spec = ContainerSpec(image="x", **words)
    base = {name: getattr(FACTS, name) for name in FACTS.__struct_fields__}
    given = ContainerFacts(**{**base, "mounts": spec.mounts, **facts})
    return container_config(spec, image, given, HOST, seccomp=None)


IMAGE = ImageConfig(entrypoint=("entry",), cmd=("cmd",))


@pytest.mark.parametrize(
    ("entrypoint", "args", "wanted"),
    [
        (None, None, ["entry", "cmd"]),
        (None, ("a", "b"), ["entry", "a", "b"]),
        (("other",), None, ["other"]),
        (("other",), ("a",), ["other", "a"]),
        ((), ("a",), ["a"]),
    ],
)
def test_arguments_entrypoint_and_cmd_combine_as_in_docker(entrypoint: Any, args: Any, wanted: Any) -> None:
    assert config(IMAGE, entrypoint=entrypoint, args=args)["process"]["args"] == wanted


def test_arguments_nothing_to_run_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no command"):
        config(IMAGE, entrypoint=(), args=None)


def test_environment_later_words_replace_earlier_in_place() -> None:
    image = ImageConfig(env=("PATH=/bin", "A=1", "B=2", "bad"))
    env = config(image, env={"A": "3", "C": ""}, tty=True)["process"]["env"]
    assert env == ["PATH=/bin", "HOSTNAME=web", "TERM=xterm", "A=3", "B=2", "C=", "HOME=/root"]


def test_environment_of_user_keeps_a_home_set_on_purpose() -> None:
    assert "HOME=/x" in config(ImageConfig(env=("HOME=/x",)), user="app")["process"]["env"]
    assert "HOME=/home/app" in config(user="app")["process"]["env"]


@pytest.mark.parametrize(
    ("text", "uid", "gid", "groups"),
    [
        ("", 0, 0, (0,)),
        ("app", 1000, 1001, (29, 1001)),
        ("1000", 1000, 1001, (29, 1001)),
        ("app:root", 1000, 0, (0,)),
        ("4242", 4242, 0, (0,)),
        ("4242:77", 4242, 77, (77,)),
        ("2147483647", 2147483647, 0, (0,)),
    ],
)
def test_user_resolves(text: str, uid: int, gid: int, groups: tuple[int, ...]) -> None:
    found = users.resolve(text, (), passwd=PASSWD, group=GROUP)
    assert (found.uid, found.gid, found.groups) == (uid, gid, groups)


@pytest.mark.parametrize(
    "text",
    [
        *("2147483648", "4294967296", "99999999999", "evil", "root\n", "nobody", "app:", "app:big"),
        *("app:4294967296", "-1", "a b", "٣", "1000:root\n", "\0"),
    ],
)
def test_user_bad_or_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        users.resolve(text, (), passwd=PASSWD, group=GROUP)


def test_user_extra_groups_are_added() -> None:
    found = users.resolve("app", ("audio", "500"), passwd=PASSWD, group=GROUP)
    assert found.groups == (29, 500, 1001)


def test_user_home_that_is_no_path_becomes_root_directory() -> None:
    assert users.resolve("rel", (), passwd=PASSWD, group=GROUP).home == "/"


def test_user_huge_or_hostile_files_are_survived() -> None:
    junk = b"x" * 100_000 + b"\n" + b"a:b\n" * 1000 + b"\xff\xfe:::\n\0app:x:0:0::/:\n"
    assert users.resolve("app", (), passwd=junk + PASSWD, group=junk + GROUP).uid == 1000


@pytest.mark.parametrize(
    "path",
    ["/proc/self/fd/7", "/proc/self/cwd", "/proc/1/root", "/a/../proc/self/fd", "//proc/thread-self", "x"],
)
def test_workdir_magic_link_or_relative_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        config(workdir=path)


def test_workdir_of_spec_then_image_then_root() -> None:
    image = ImageConfig(workdir="/srv/../app/")
    assert config(image)["process"]["cwd"] == "/app"
    assert config(image, workdir="/w")["process"]["cwd"] == "/w"
    assert config()["process"]["cwd"] == "/"


@pytest.mark.parametrize(
    ("add", "drop", "wanted"),
    [
        ((), (), capabilities.DEFAULT),
        (("net_admin",), ("CAP_CHOWN",), capabilities.DEFAULT - {"CAP_CHOWN"} | {"CAP_NET_ADMIN"}),
        (("CHOWN",), ("ALL",), {"CAP_CHOWN"}),
        (("ALL",), ("SYS_ADMIN",), set(capabilities.KERNEL) - {"CAP_SYS_ADMIN"}),
        ((), ("all",), set()),
    ],
)
def test_capabilities_add_and_drop_as_in_docker(add: Any, drop: Any, wanted: set[str]) -> None:
    found = config(cap_add=add, cap_drop=drop)["process"]["capabilities"]
    assert set(found["bounding"]) == wanted
    assert found["bounding"] == found["effective"] == found["permitted"]
    assert "inheritable" not in found
    assert "ambient" not in found


def test_capabilities_unknown_is_refused_and_absent_ones_are_not_promised() -> None:
    with pytest.raises(InvalidInput, match="FLY"):
        config(cap_add=("FLY",))
    held = capabilities.held("docker", ("SYS_TIME",), (), privileged=False, available=0b11)
    assert held == {"CAP_CHOWN", "CAP_DAC_OVERRIDE"}


def test_capability_profiles_are_podmans_and_dockers() -> None:
    assert (len(capabilities.DEFAULT), len(capabilities.DOCKER)) == (11, 14)
    assert capabilities.STRICT < capabilities.DEFAULT < capabilities.DOCKER


def test_profile_of_container_goes_before_the_fleets() -> None:
    assert profile_of(ContainerSpec(image="x", security_profile="strict"), "docker") == "strict"
    assert profile_of(ContainerSpec(image="x"), "docker") == "docker"
    assert profile_of(ContainerSpec(image="x"), "") == "default"


def test_strict_profile_reads_only_and_gains_nothing() -> None:
    made = config(profile="strict")
    assert made["root"]["readonly"]
    assert made["process"]["noNewPrivileges"]
    assert not config()["process"]["noNewPrivileges"]
    assert config(no_new_privileges=True)["process"]["noNewPrivileges"]


def test_seccomp_missing_profile_is_refused_unless_unconfined() -> None:
    with pytest.raises(Unsupported, match="no seccomp profile"):
        config(seccomp="")
    assert "seccomp" not in config(seccomp="", privileged=True)["linux"]


def test_mounts_parents_come_first_and_users_replace_standard_ones() -> None:
    mounts = (
        Mount(type="bind", source="/s", target="/a/b/c", read_only=True),
        Mount(type="tmpfs", target="/dev/shm", tmpfs_size=4096, tmpfs_options=("exec",)),
        Mount(type="volume", source="/v", target="/a/", propagation="rslave"),
    )
    made = config(mounts=mounts, etc={"/etc/hosts": "/h", "/a": "/never"})
    table = {m["destination"]: m for m in made["mounts"]}
    order = [m["destination"] for m in made["mounts"]]
    assert len(order) == len(set(order))
    assert order.index("/a") < order.index("/a/b/c")
    assert table["/a"] == {
        "destination": "/a",
        "type": "bind",
        "source": "/v",
        "options": ["rbind", "rw", "rslave"],
    }
    assert table["/a/b/c"]["options"] == ["rbind", "ro", "rprivate"]
    assert table["/dev/shm"]["options"] == ["nosuid", "nodev", "exec", "size=4096", "mode=1777"]
    assert table["/etc/hosts"]["source"] == "/h"
    assert made["linux"]["rootfsPropagation"] == "rslave"


def test_mounts_own_dev_takes_the_standard_ones_below_away() -> None:
    made = config(mounts=(Mount(type="bind", source="/dev", target="/dev"),))
    assert [m["destination"] for m in made["mounts"] if m["destination"].startswith("/dev")] == ["/dev"]


@pytest.mark.parametrize(
    "mount",
    [
        Mount(type="bind", source="/s", target="/"),
        Mount(type="bind", source="/s", target="/a/.."),
        Mount(type="bind", source="/s", target="/proc/sys"),
        Mount(type="bind", source="/s", target="rel"),
        Mount(type="bind", source="rel", target="/a"),
        Mount(type="bind", source="/s", target="/a\0b"),
        Mount(type="tmpfs", target="/a", tmpfs_options=("size=1,exec",)),
        Mount(type="tmpfs", target="/a", tmpfs_options=("bind",)),
    ],
)
def test_mounts_bad_ones_are_refused(mount: Mount) -> None:
    with pytest.raises(InvalidInput, match=r"mounts\[0\]"):
        config(mounts=(mount,))


def test_mounts_duplicates_are_all_named_at_once() -> None:
    twice = Mount(type="tmpfs", target="/a")
    with pytest.raises(InvalidInput) as caught:
        config(mounts=(twice, twice, Mount(type="tmpfs", target="/a/")))
    assert [p.path for p in caught.value.problems] == ["mounts[1]", "mounts[2]"]


def test_resources_become_the_runtimes_words() -> None:
    limits = Resources(
        nano_cpus=1_500_000_000, memory=64 << 20, pids=9, cpu_shares=512, cpuset_cpus="0-1", memory_swap=-1
    )
    made = config(resources=limits)["linux"]["resources"]
    assert made["cpu"] == {"quota": 150_000, "period": 100_000, "shares": 512, "cpus": "0-1"}
    assert made["memory"] == {"limit": 64 << 20, "swap": -1}
    assert made["pids"] == {"limit": 9}
    assert made["devices"] == [{"allow": False, "access": "rwm"}]
    assert config(resources=Resources(memory=8 << 20))["linux"]["resources"]["memory"]["swap"] == 16 << 20
    assert set(config()["linux"]["resources"]) == {"devices"}


@pytest.mark.parametrize(
    "limits",
    [
        Resources(memory=1),
        Resources(memory_swap=64 << 20),
        Resources(memory=64 << 20, memory_swap=32 << 20),
        Resources(nano_cpus=3_000_000_000),
        Resources(cpuset_cpus="0;1"),
    ],
)
def test_resources_impossible_are_refused(limits: Resources) -> None:
    with pytest.raises(InvalidInput):
        config(resources=limits)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"sysctls": {"kernel.panic": "1"}}, "not separate"),
        ({"sysctls": {"net.core.somaxconn": "9"}, "netns": ""}, "host's network"),
        ({"sysctls": {"kernel.msgmax": "9"}, "ipc_mode": "host"}, "host's ipc"),
        ({"sysctls": {"kernel.shm_rmid_forced": "1+kernel.core_pattern=|x\n"}}, "invalid"),
        ({"sysctls": {"net.x+kernel.y": "1"}}, "invalid"),
        ({"annotations": {"org.systemd.property.X": "1"}}, "steers"),
        ({"ulimits": (Ulimit(name="nofile", soft=30000, hard=30000),)}, "20000 at most"),
        ({"ulimits": (Ulimit(name="nofile", soft=2, hard=1),)}, "above the hard"),
        ({"ulimits": (Ulimit(name="wings", soft=1, hard=1),)}, "unknown ulimit"),
        ({"env": {"A=B": "1"}}, "name"),
        ({"args": ("a\0b",)}, "NUL"),
    ],
)
def test_config_dangerous_or_impossible_wish_is_refused(words: dict[str, Any], reason: str) -> None:
    with pytest.raises(FlotaError, match=reason):
        config(**words)


def test_sysctls_of_own_namespaces_are_set() -> None:
    made = config(sysctls={"net.core.somaxconn": "9", "kernel.msgmax": "8"}, domainname="example.org")
    assert made["linux"]["sysctl"] == {
        "net.ipv4.ping_group_range": "0 2147483647",
        "net.ipv4.ip_unprivileged_port_start": "0",
        "kernel.domainname": "example.org",
        "net.core.somaxconn": "9",
        "kernel.msgmax": "8",
    }
    assert config(netns="")["linux"]["sysctl"] == {}


def test_ulimits_default_stays_below_the_hosts() -> None:
    assert config()["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 20000, "hard": 20000}]


def test_namespaces_follow_the_modes() -> None:
    def kinds(**words: Any) -> set[str]:
        return {n["type"] for n in config(**words)["linux"]["namespaces"]}

    assert kinds() == {"mount", "uts", "pid", "ipc", "network"}
    assert kinds(pid_mode="host", ipc_mode="host", netns="") == {"mount", "uts"}


def test_init_goes_before_the_program() -> None:
    made = config(init=True)
    assert made["process"]["args"] == ["/sbin/docker-init", "--", "true"]
    source = next(m["source"] for m in made["mounts"] if m["destination"] == "/sbin/docker-init")
    assert source == "/usr/bin/tini-static"


def test_config_takes_nothing_but_the_process_from_the_image() -> None:
    image = ImageConfig(
        env=("A=MARK",), cmd=("MARK",), labels={"MARK": "MARK"}, volumes=("/MARK",), stop_signal="MARK"
    )
    made = config(image, args=None)
    assert "MARK" in str(made.pop("process"))
    assert "MARK" not in str(made)


def test_exec_takes_the_containers_process_but_for_its_own_words() -> None:
    base = config(user="app", workdir="/w", env={"A": "1"})
    spec = ExecSpec(args=("id",), env={"A": "2", "B": "3"}, tty=True)
    made = exec_process(spec, base, HOST, passwd=PASSWD, group=GROUP)
    assert (made["args"], made["cwd"], made["terminal"]) == (["id"], "/w", True)
    assert made["user"] == base["process"]["user"]
    assert made["capabilities"] == base["process"]["capabilities"]
    assert {"A=2", "B=3", "TERM=xterm", "HOME=/home/app"} <= set(made["env"])


def test_exec_as_another_user_goes_to_its_home() -> None:
    made = exec_process(ExecSpec(args=("id",), user="app"), config(), HOST, passwd=PASSWD, group=GROUP)
    assert made["user"] == {"uid": 1000, "gid": 1001, "additionalGids": [29, 1001]}
    assert "HOME=/home/app" in made["env"]
    kept = exec_process(
        ExecSpec(args=("id",), user="app"), config(env={"HOME": "/x"}), HOST, passwd=PASSWD, group=GROUP
    )
    assert "HOME=/x" in kept["env"]


def test_exec_privileged_holds_everything() -> None:
    made = exec_process(ExecSpec(args=("id",), privileged=True), config(), HOST)
    assert made["capabilities"]["bounding"] == list(capabilities.KERNEL)
