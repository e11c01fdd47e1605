"""What an agent is started with: one frozen value."""

from __future__ import annotations

from collections.abc import Mapping

from model.spec import Struct

DEFAULT_STATE = "/var/lib/flota/agent"
DEFAULT_RUN = "/run/flota/agent"


class AgentConfig(Struct):
    """`state_dir` holds the journal, images, volumes, logs and the host's key; `run_dir`, on a tmpfs, what a
    boot takes away. The enrollment in `state_dir` says which fleet and controller."""

    state_dir: str = DEFAULT_STATE
    run_dir: str = DEFAULT_RUN
    socket: str = "/run/flota/agent.sock"
    name: str = ""
    """Empty: the host name."""
    address: str = ""
    """Underlay address; empty: that of the way to the controller."""
    behind_nat: bool = False
    """Others reach it only by answering: it is on encrypted networks alone."""
    cgroup_parent: str = "/flota"
    """A path, or a slice of systemd's."""
    cgroup_driver: str = ""
    """Of `agent.oci.cgroups.DRIVERS`; empty: systemd where it runs and cgroups are v2."""
    storage_driver: str = ""
    """Of `image.drivers.choice.DRIVERS`; empty: the best that works."""
    labels: Mapping[str, str] = {}
    insecure_registries: tuple[str, ...] = ()
    """Registry hosts that may be spoken to over plain HTTP; loopback always may."""
    registry_mirrors: tuple[str, ...] = ()
    """`[REGISTRY=]URL`, asked in order before the registry itself; docker.io's where none is named."""
    peer_port: int = 7421
    """TCP, at the underlay address, where other hosts get layers; 0: they get none."""
    peer_rate: int = 0
    """Bytes a second that they get, all together; 0: as fast as it goes."""
    network_drivers: tuple[str, ...] = ()
    """Third parties' (docs/drivers.md)."""
    processes_unit: str = ""
    """Unit of systemd that keeps the supervisor of what outlives the agent; empty: the agent does."""
    log_level: str = ""
    """Of `aio.service.LEVELS`; empty: info."""
