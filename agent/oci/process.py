"""The process object: what runs, as whom, where, with which environment and limits. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent.oci import users
from agent.oci.capabilities import held, oci
from agent.oci.facts import ContainerFacts, HostLimits
from agent.oci.mounts import INIT_TARGET
from agent.oci.users import User
from model.errors import InvalidInput, Unsupported
from model.image import ImageConfig
from model.spec import ContainerSpec, Ulimit
from model.streams import ExecSpec

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_NOFILE = 1 << 20
_ULIMITS = (
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
)
ULIMITS = frozenset(_ULIMITS.split())
_MAGIC = re.compile(r"/proc/(self|thread-self|\d+)(/|\Z)")


def arguments(spec: ContainerSpec, image: ImageConfig) -> list[str]:
    """ENTRYPOINT and CMD as Docker combines them. Raises InvalidInput when nothing is left to run."""
    if spec.entrypoint is not None:
        words = [*spec.entrypoint, *(spec.args or ())]
    else:
        words = [*(image.entrypoint or ()), *((image.cmd or ()) if spec.args is None else spec.args)]
    if not words:
        raise InvalidInput(
            "no command given, and the image has none", hint="Write the command after the image's name"
        )
    _check_text("argument", words)
    return words


def environment(spec: ContainerSpec, image: ImageConfig, *, hostname: str, user: User) -> list[str]:
    """Defaults first, then the image's, then the user's; a later one replaces an earlier in its place."""
    env = {"PATH": PATH, "HOSTNAME": hostname}
    if spec.tty:
        env["TERM"] = "xterm"
    for pair in image.env:
        name, equals, value = pair.partition("=")
        if name and equals:
            env[name] = value
    for name in spec.env_remove:
        env.pop(name, None)
    env.update(spec.env)
    env.setdefault("HOME", user.home)
    return pairs(env)


def pairs(env: Mapping[str, str]) -> list[str]:
    for name in env:
        if not name or "=" in name:
            raise InvalidInput(f"invalid environment variable name {name[:80]!r}")
    _check_text("environment", [*env, *env.values()])
    return [f"{name}={value}" for name, value in env.items()]


def _check_text(what: str, words: Sequence[str]) -> None:
    if any("\0" in word for word in words):
        raise InvalidInput(f"{what} with a NUL byte")


def workdir(wish: str, image: str = "") -> str:
    """Raises InvalidInput for a relative wish, and for the magic links of /proc, which lead out
    (CVE-2024-21626)."""
    if wish and not wish.startswith("/"):
        raise InvalidInput(f"the working directory {wish[:80]!r} is invalid: it must be an absolute path")
    path = posixpath.normpath("/" + (wish or image or "/").lstrip("/"))
    if "\0" in path or _MAGIC.match(path):
        raise InvalidInput(f"the working directory {path[:80]!r} is refused: it is a process's own link")
    return path


def rlimits(wishes: Sequence[Ulimit], host: HostLimits) -> list[dict[str, Any]]:
    """Raises InvalidInput for an unknown name or soft above hard, Unsupported above what we may give."""
    limits = {ulimit.name.lower().removeprefix("rlimit_"): ulimit for ulimit in wishes}
    if "nofile" not in limits:
        most = min(DEFAULT_NOFILE, host.hard_limits.get("nofile", DEFAULT_NOFILE))
        limits["nofile"] = Ulimit(name="nofile", soft=most, hard=most)
    for name, ulimit in limits.items():
        if name not in ULIMITS:
            raise InvalidInput(f"unknown ulimit {name[:40]!r}", hint=f"Known: {', '.join(sorted(ULIMITS))}")
        soft, hard = _limit(ulimit.soft), _limit(ulimit.hard)
        if soft > hard:
            raise InvalidInput(f"ulimit {name}: soft limit {ulimit.soft} is above the hard one {ulimit.hard}")
        if hard > host.hard_limits.get(name, hard):
            raise Unsupported(
                f"ulimit {name}={ulimit.hard}: this host allows {host.hard_limits[name]} at most"
            )
    return [
        {"type": f"RLIMIT_{name.upper()}", "soft": _limit(u.soft), "hard": _limit(u.hard)}
        for name, u in sorted(limits.items())
    ]


def _limit(value: int) -> int:
    return value if value >= 0 else (1 << 64) - 1


def process(
    spec: ContainerSpec,
    image: ImageConfig,
    facts: ContainerFacts,
    host: HostLimits,
    *,
    capabilities: frozenset[str],
) -> dict[str, Any]:
    """The container's first process (config.md#process)."""
    user = users.resolve(spec.user or image.user, spec.groups, passwd=facts.passwd, group=facts.group)
    args = arguments(spec, image)
    if spec.init:
        if not host.init_path:
            raise Unsupported("this host has no init for containers", hint="Install tini or catatonit there")
        args = [INIT_TARGET, "--", *args]
    quiet = facts.profile == "strict" and not spec.privileged
    return {
        "terminal": spec.tty,
        "user": _user(user),
        "args": args,
        "env": environment(spec, image, hostname=facts.hostname, user=user),
        "cwd": workdir(spec.workdir, image.workdir),
        "capabilities": oci(capabilities),
        "rlimits": rlimits(spec.ulimits, host),
        "noNewPrivileges": quiet if spec.no_new_privileges is None else spec.no_new_privileges,
        "oomScoreAdj": spec.oom_score_adj,
    }


def exec_process(
    spec: ExecSpec,
    container: Mapping[str, Any],
    host: HostLimits,
    *,
    passwd: bytes = b"",
    group: bytes = b"",
) -> dict[str, Any]:
    """A further process: the container's own, but for what the exec says. HOME follows a `user` of its own
    unless the container's was set on purpose."""
    if not spec.args:
        raise InvalidInput("no command given to execute")
    _check_text("argument", spec.args)
    base = container["process"]
    env = dict(pair.partition("=")[::2] for pair in base["env"])
    made = {**base, "terminal": spec.tty, "args": list(spec.args)}
    if spec.user:
        user = users.resolve(spec.user, (), passwd=passwd, group=group)
        made["user"] = _user(user)
        if env.get("HOME") == users.home_of(base["user"]["uid"], passwd):
            env["HOME"] = user.home
    if spec.tty:
        env.setdefault("TERM", "xterm")
    env.update(spec.env)
    made["env"] = pairs(env)
    if spec.workdir:
        made["cwd"] = workdir(spec.workdir)
    if spec.privileged:
        made["capabilities"] = oci(held("default", (), (), privileged=True, available=host.capabilities))
    return made


def _user(user: User) -> dict[str, Any]:
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}
