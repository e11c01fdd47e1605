"""A RUN step as an OCI configuration: by the same code as a container's, so with the same confinement. Pure.

Invariants: the root is writable whatever the fleet's profile, for that is what a step is for; only with
entitlements of the build does a step get more than a container has.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Sequence
from typing import Any

from msgspec.structs import replace

from agent import ocispec
from agent.oci.facts import ContainerFacts, Device, HostLimits
from agent.oci.resources import device_nodes
from agent.oci.seccomp import SeccompPolicy
from image.build.step import RunStep
from model.build import BuildRequest
from model.errors import Forbidden, InvalidInput, NotFound
from model.image import ImageConfig
from model.spec import ContainerSpec, Struct, Ulimit

HOSTNAME = "build"
"""The same in every build, so that it makes no difference to what is made."""
HOST, NONE, DEFAULT = "host", "none", "default"
_SHELLS = frozenset(("sh", "bash", "ash", "dash", "ksh", "mksh", "zsh"))
_DEVICE = re.compile(
    r"(?P<host>/dev/[^:\0]{1,200})(:(?P<inside>/[^:\0]{1,200}))?(:(?P<access>[rwm]{1,3}))?\Z"
)


def entitlements(request: BuildRequest) -> frozenset[str]:
    """What a build was given beyond what a container may. Who says `--network host` on the command line has
    allowed it by that, as in buildx."""
    implied = ("network.host",) if request.network == HOST else ()
    return frozenset((*request.allow, *implied))


def check_allowed(step: RunStep, allow: Collection[str]) -> None:
    """Raises Forbidden for what the build was not given."""
    needed = [
        ("network.host", step.network == HOST, "RUN --network=host"),
        ("security.insecure", step.insecure, "RUN --security=insecure"),
        ("device", bool(step.devices), "RUN --device"),
    ]
    for entitlement, needs, what in needed:
        if needs and entitlement not in allow:
            raise Forbidden(
                f"{what} is not allowed in this build", hint=f"Give the build --allow {entitlement}"
            )


def shell_of(args: Sequence[str]) -> tuple[str, ...]:
    """A shell for a person in a step that failed: its own, if it had one."""
    own = args[0] if args and posixpath.basename(args[0]) in _SHELLS else "/bin/sh"
    return (own,)


def container_spec(
    step: RunStep,
    environment: Sequence[str] = (),
    *,
    args: tuple[str, ...] | None = None,
    tty: bool = False,
) -> ContainerSpec:
    """The wish that a container like this step would come from. `environment`: after the step's own, as
    `KEY=value`; `args` instead of its own. Raises InvalidInput."""
    env: dict[str, str] = {}
    for pair in (*step.proxies, *step.env, *environment):
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise InvalidInput(f"invalid environment variable {pair[:80]!r}")
        env[name] = value
    return ContainerSpec(
        image="",
        args=step.args if args is None else args,
        env=env,
        tty=tty,
        workdir=step.workdir or "/",
        user=step.user,
        privileged=step.insecure,
        extra_hosts=step.hosts,
        resources=step.resources,
        shm_size=step.shm_size or ContainerSpec(image="").shm_size,
        ulimits=tuple(Ulimit(name=n, soft=soft, hard=hard) for n, (soft, hard) in step.ulimits.items()),
    )


def configuration(
    spec: ContainerSpec,
    facts: ContainerFacts,
    host: HostLimits,
    seccomp: SeccompPolicy | None,
    *,
    devices: Sequence[Given] = (),
) -> dict[str, Any]:
    """config.json as plain data. Raises InvalidInput, Unsupported."""
    config = ocispec.container_config(spec, ImageConfig(), facts, host, seccomp=seccomp)
    config["root"]["readonly"] = False
    if devices and not spec.privileged:
        config["linux"]["devices"] = device_nodes(tuple(given.device for given in devices))
        config["linux"]["resources"]["devices"] += [given.rule for given in devices]
    return config


class Given(Struct):
    device: Device
    """Its path is the one inside."""
    access: str = "rwm"

    @property
    def rule(self) -> dict[str, Any]:
        d = self.device
        return {"allow": True, "type": d.type, "major": d.major, "minor": d.minor, "access": self.access}


def devices_of(wishes: Sequence[str], host: HostLimits) -> tuple[Given, ...]:
    """`/dev/fuse`, `/dev/sda:/dev/xvda:r`, or `name=/dev/fuse,required`. One that is not on this host is left
    out, as in BuildKit, unless it is required. Raises InvalidInput, NotFound."""
    known = {device.path: device for device in host.devices}
    made = []
    for wish in wishes:
        words = [word.strip() for word in wish.split(",")]
        name = next((w.removeprefix("name=") for w in words if not w.startswith("required")), "")
        found = _DEVICE.match(name)
        device = known.get(found["host"]) if found else None
        if device is not None and found is not None:
            path = found["inside"] or device.path
            if not path.startswith("/dev/") or posixpath.normpath(path) != path:
                raise InvalidInput(f"device {wish[:80]!r}: {path[:80]} is not below /dev")
            made.append(Given(device=replace(device, path=path), access=found["access"] or "rwm"))
        elif "required" in words or "required=true" in words:
            raise NotFound(f"device {name[:80]!r} is not on this host", hint="Write for example /dev/fuse")
    return tuple(made)
