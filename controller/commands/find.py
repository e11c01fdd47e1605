"""What a user's word means: ids, names, unique id prefixes. Pure. Raises NotFound, Ambiguous."""

from __future__ import annotations

from collections.abc import Iterable

from controller.snapshot import Cluster
from model.errors import NotFound
from model.ids import HostId, InstanceId, PolicyId, ServiceId, is_id, resolve
from model.records import Host, Instance, Policy, Service


def find_instance(cluster: Cluster, ref: str) -> Instance:
    """By name among those that are not being removed; by id among all."""
    ref = ref.removeprefix("/")
    known = cluster.names.get(ref)
    if known is None and is_id(ref):
        known = InstanceId(ref)
    if known is not None and known in cluster.instances:
        return cluster.instances[known]
    pairs = ((i.id, i.name) for i in cluster.instances.values())
    return cluster.instances[InstanceId(_resolve("container", ref, pairs, "flota ps -a"))]


def find_service(cluster: Cluster, ref: str) -> Service:
    pairs = ((s.id, s.spec.name) for s in cluster.services.values())
    return cluster.services[ServiceId(_resolve("service", ref, pairs, "flota service ls"))]


def find_host(cluster: Cluster, ref: str) -> Host:
    pairs = ((h.id, h.spec.name) for h in cluster.hosts.values())
    return cluster.hosts[HostId(_resolve("node", ref, pairs, "flota node ls"))]


def find_policy(cluster: Cluster, ref: str) -> Policy:
    pairs = ((p.id, p.spec.name) for p in cluster.policies.values())
    return cluster.policies[PolicyId(_resolve("policy", ref, pairs, "flota policy ls"))]


def _resolve(what: str, ref: str, pairs: Iterable[tuple[str, str]], lists: str) -> str:
    try:
        return resolve(what, ref, pairs)
    except NotFound as error:
        raise NotFound(error.message, hint=f"`{lists}` shows them") from error
