"""From what the user wants and the image says to an OCI runtime configuration (runtime-spec 1.0.2). Pure.

Invariant: the configuration depends on the arguments alone. What an image supplies ends up in the process's
args, env, user and cwd and nowhere else: not in annotations, paths on the host, cgroups or hooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.oci import capabilities, mounts, resources
from agent.oci.facts import ContainerFacts, Device, HostLimits, Profile
from agent.oci.process import exec_process, process
from agent.oci.seccomp import SeccompPolicy
from model.errors import Unsupported
from model.image import ImageConfig
from model.spec import ContainerSpec

__all__ = [
    "ContainerFacts",
    "Device",
    "HostLimits",
    "Profile",
    "SeccompPolicy",
    "container_config",
    "exec_process",
    "profile_of",
]


def profile_of(spec: ContainerSpec, fleet: str) -> Profile:
    """The container's own security profile, else the fleet's (`View.security_profile`)."""
    wish = spec.security_profile or fleet
    return next((name for name in capabilities.PROFILES if name == wish), "default")


def container_config(
    spec: ContainerSpec,
    image: ImageConfig,
    facts: ContainerFacts,
    host: HostLimits,
    *,
    seccomp: SeccompPolicy | None,
) -> dict[str, Any]:
    """config.json as plain data. `seccomp` None: the host has no profile, and only containers that are
    privileged or say `unconfined` may run. Raises InvalidInput, Unsupported."""
    held = capabilities.held(
        facts.profile, spec.cap_add, spec.cap_drop, privileged=spec.privileged, available=host.capabilities
    )
    strict = facts.profile == "strict" and not spec.privileged
    return {
        "ociVersion": "1.0.2",
        "process": process(spec, image, facts, host, capabilities=held),
        "root": {"path": facts.rootfs, "readonly": spec.read_only or strict},
        **({} if spec.uts_mode else {"hostname": facts.hostname}),
        "mounts": mounts.table(spec, facts, host),
        "annotations": {**resources.annotations_of(spec), **facts.steering},
        "linux": _linux(spec, facts, host, seccomp=_filter(spec, held, seccomp, abi32=facts.abi32)),
    }


def _filter(
    spec: ContainerSpec, held: frozenset[str], policy: SeccompPolicy | None, *, abi32: bool
) -> Mapping[str, Any] | None:
    if spec.privileged or spec.seccomp == "unconfined":
        return None
    if policy is None:
        raise Unsupported(
            "this host has no seccomp profile",
            hint="Install golang-github-containers-common, or run with --security-opt seccomp=unconfined",
        )
    return policy.compile(held, abi32=abi32)


def _linux(
    spec: ContainerSpec, facts: ContainerFacts, host: HostLimits, *, seccomp: Mapping[str, Any] | None
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "cgroupsPath": facts.cgroups_path,
        "namespaces": _namespaces(spec, facts, host),
        "resources": {
            "devices": resources.device_rules(spec, facts.devices),
            **resources.resources(spec.resources, host, facts.blocks),
        },
        "sysctl": resources.sysctls(spec, own_network=bool(facts.netns)),
    }
    if spec.privileged:
        made["devices"] = resources.device_nodes(host.devices, facts.devices)
    else:
        made["devices"] = resources.device_nodes(facts.devices)
        usual = mounts.masked(host), mounts.READ_ONLY
        made["maskedPaths"] = list(usual[0] if spec.masked_paths is None else spec.masked_paths)
        made["readonlyPaths"] = list(usual[1] if spec.readonly_paths is None else spec.readonly_paths)
    if seccomp is not None:
        made["seccomp"] = seccomp
    propagation = mounts.root_propagation(facts.mounts)
    if propagation:
        made["rootfsPropagation"] = propagation
    return made


def _namespaces(spec: ContainerSpec, facts: ContainerFacts, host: HostLimits) -> list[dict[str, str]]:
    made = [{"type": "mount"}]
    if spec.uts_mode != "host":
        made.append({"type": "uts"})
    if spec.pid_mode != "host":
        made.append({"type": "pid"})
    if spec.ipc_mode != "host":
        made.append({"type": "ipc"})
    if host.cgroup_v2 and not spec.privileged and spec.cgroup_namespace != "host":
        made.append({"type": "cgroup"})
    if facts.netns:
        made.append({"type": "network", "path": facts.netns})
    return made
