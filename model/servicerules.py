"""What a service's spec means where it says nothing. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from model.spec import RestartPolicy, ServiceSpec


def kept_up(spec: ServiceSpec) -> ServiceSpec:
    """The spec as it is stored: a service without a restart policy keeps its instances up, by `always`,
    unless it says that they may end."""
    if spec.may_end or spec.container.restart != RestartPolicy():
        return spec
    return replace(spec, container=replace(spec.container, restart=RestartPolicy(condition="always")))
