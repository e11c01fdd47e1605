"""What may be changed of a container while it lives, beside its networks. Pure."""

from __future__ import annotations

from model.spec import RestartPolicy, Struct


class UpdateLimits(Struct):
    """Other limits or another restart policy of a plain container, also while it runs. None stays as it is,
    0 is no limit."""

    nano_cpus: int | None = None
    memory: int | None = None
    memory_swap: int | None = None
    pids: int | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    blkio_weight: int | None = None
    restart: RestartPolicy | None = None
